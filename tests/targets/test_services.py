"""Services on a real engine: the image's own ways, the network without a way out, the loopback ports, and their end."""

from __future__ import annotations

import json
import shlex
import uuid
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from pccpipe.cancel import Cancel, Deadline, Halt
from pccpipe.docker_api import networks
from pccpipe.outcome import Place
from pccpipe.service import RunningService, ServiceCommand, ServiceOwner
from pccpipe.spec.services import CAPABILITIES
from pccpipe.ssh.connection import Connection
from pccpipe.target import Chunk, Command, ContainerSettings
from pccpipe.targets.container import ContainerTarget
from tests.targets.conftest import vm_spec
from tests.targets.stand import read_all
from tests.testbed.vm import VM

IMAGE = "service:test"
# As the entrypoints of database images do: it owns its folder as root, and then becomes its own user.
ENTRYPOINT = """\
#!/bin/sh
set -e
if [ "$(id -u)" = 0 ]; then
  mkdir -p /data/db && chmod 700 /data/db
  find /data ! -user 70 -exec chown 70:70 {} +
  exec su -m -s /bin/sh db -c "exec /entrypoint $*"
fi
echo "serving: $*"; echo "a warning" >&2
cd /data
[ -z "${PASSWORD_FILE-}" ] || cp "$PASSWORD_FILE" password
id >id; echo "hello ${NAME-}" >hello
exec "$@"
"""
DOCKERFILE = """\
FROM bb:latest
COPY entrypoint /entrypoint
RUN mkdir -p /etc && echo root:x:0:0:::/bin/sh >/etc/passwd && echo db:x:70:70::/data:/bin/sh >>/etc/passwd
RUN echo root:x:0: >/etc/group && echo db:x:70: >>/etc/group
VOLUME /data
ENTRYPOINT ["/entrypoint"]
CMD ["httpd", "-f", "-p", "8080", "-h", "/data"]
"""
BOX = ContainerSettings("bb:latest", network="none", memory=256 << 20, cpus=1.0, pids=100)
DB = ServiceCommand(
    "db",
    IMAGE,
    ports=(8080,),
    memory=256 << 20,
    cpus=1.0,
    pids=100,
    capabilities=CAPABILITIES,
    ready_timeout=20.0,
)
OWNER = ServiceOwner("legs[1].tests")


class Bed:
    """A VM with the test's image, and any number of runs on it."""

    def __init__(self, vm: VM) -> None:
        self.vm = vm
        self._connections: list[Connection] = []
        self._targets: list[ContainerTarget] = []

    def target(self, run_id: str = "") -> ContainerTarget:
        """Return a target as a process of pccpipe makes one."""
        run_id = run_id or f"run-{uuid.uuid4().hex[:12]}"
        workspace = f"{self.vm.root}/.system/run-workspaces/{run_id}"
        self.vm.ssh(f"mkdir -p {workspace}")
        self._connections.append(Connection(vm_spec(self.vm)))
        state = f"{self.vm.root}/.system/run-state/{run_id}"
        made = ContainerTarget(self._connections[-1], run_id, state, lambda: workspace, kill_after=2.0)
        made.open()
        self._targets.append(made)
        return made

    def docker(self, words: str) -> str:
        return self.vm.sh(f"docker {words}").stdout.strip()

    def inspect(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.docker(f"inspect {name}"))[0]
        return found

    def things(self) -> list[str]:
        """List all that services leave: containers, networks, volumes."""
        return [
            *self.docker("ps -aq --filter label=pccpipe.service").split(),
            *self.docker("network ls -q --filter label=pccpipe.run").split(),
            *self.docker("volume ls -q").split(),
        ]

    def close(self) -> None:
        for target in self._targets:
            assert target.close() == ()
        for connection in self._connections:
            connection.close()


@pytest.fixture(scope="module")
def service_vm(bed: None) -> Iterator[VM]:
    with VM.up() as vm:
        vm.sh("mkdir -p /tmp/image && cd /tmp/image && cat >entrypoint && chmod 755 entrypoint", stdin=ENTRYPOINT)
        vm.sh("cat >/tmp/image/Dockerfile", stdin=DOCKERFILE)
        vm.sh(f"docker build -q -t {IMAGE} /tmp/image")
        yield vm


@pytest.fixture
def on(service_vm: VM) -> Iterator[Bed]:
    made = Bed(service_vm)
    yield made
    made.close()
    assert made.things() == []


def halt(seconds: float = 30.0) -> Halt:
    return Halt(Cancel(), Deadline.after(seconds, "test"))


def run(target: ContainerTarget, script: str, service: RunningService, network: str = "none") -> str:
    """Run a script in a step's container beside a service; return its output."""
    box = ContainerSettings("bb:latest", network=network, memory=256 << 20, pids=100)
    command = Command(f"step-{uuid.uuid4().hex[:6]}", "step", 1, script, container=box, network=service.network)
    running = target.start(command)
    try:
        out, err, _ = read_all(running)
        return (out + err).decode()
    finally:
        running.discard()


def output(service: RunningService, wanted: str) -> str:
    seen = ""
    while wanted not in seen:
        chunk = service.running.read(5.0)
        assert isinstance(chunk, Chunk), (chunk, seen)
        seen += chunk.data.decode()
    return seen


def test_it_keeps_the_images_user_entrypoint_and_command_and_is_reached_by_name(on: Bed) -> None:
    target = on.target()
    (db,) = target.services.start(OWNER, [DB])
    assert db.wait_ready(halt()) is None
    said = run(target, "wget -qO- http://db:8080/id; wget -qO- http://db:8080/hello", db)
    assert said == "uid=70(db) gid=70(db) groups=70(db)\nhello \n"
    assert "serving: httpd -f -p 8080 -h /data" in output(db, "/data")
    found = on.inspect(str(db.token["name"]))
    host = found["HostConfig"]
    assert (found["Config"]["User"], found["Config"]["Entrypoint"]) == ("", ["/entrypoint"])
    assert (sorted(host["CapAdd"]), host["CapDrop"]) == (list(CAPABILITIES), ["ALL"])
    assert (host["SecurityOpt"], host["Binds"]) == (["no-new-privileges"], None)
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (256 << 20, 10**9, 100)
    assert [mount["Type"] for mount in found["Mounts"]] == ["volume"]
    assert db.running.isolation.capabilities == CAPABILITIES
    assert db.end(2.0) == ""


WAYS_OUT = """
exec 2>/dev/null
for address in {addresses}; do
  case $(echo | timeout 1 nc ${{address%:*}} ${{address#*:}} 2>&1) in *SSH-2*) echo "reached $address";; esac
done
nslookup example.org 2>&1 | grep -q 'Address: [1-9]' && echo resolved
timeout 1 nslookup -type=a secret.example.org {outside} 2>&1 | grep -q 'Address: [1-9]' && echo asked
true
"""


def ways_out(on: Bed, *others: str) -> str:
    """Return a script that names each way out which it finds: to the VM, its bridges, this machine, and others."""
    bridges = on.vm.sh("ip -4 -o addr show | awk '{split($4, a, \"/\"); print a[1]}'").stdout.split()
    inside = on.docker("network ls -q --filter label=pccpipe.run").split()
    gateways = [on.docker(f"network inspect -f '{{{{(index .IPAM.Config 0).Gateway}}}}' {each}") for each in inside]
    addresses = [*(f"{each}:22" for each in {*bridges, *gateways, on.vm.host_side} - {"127.0.0.1"}), *others]
    return WAYS_OUT.format(addresses=" ".join(addresses), outside=on.vm.host_side)


def test_no_way_leads_out_of_its_network_to_the_machine_the_world_or_another_owner(on: Bed) -> None:
    target, other = on.target(), on.target()
    (db,) = target.services.start(OWNER, [DB])
    (foreign,) = other.services.start(OWNER, [DB])
    for each in (db, foreign):
        assert each.wait_ready(halt()) is None
    # An SSH banner says who was reached.
    addresses = on.docker(
        f"inspect -f '{{{{range .NetworkSettings.Networks}}}}{{{{.IPAddress}}}} {{{{end}}}}' {foreign.token['name']}"
        " $(docker ps -q --filter label=pccpipe.service)"
    ).split()
    script = ways_out(on)
    assert run(target, script, db) == ""
    assert on.docker(f"exec {db.token['name']} sh -c {shlex.quote(script)}") == ""
    seen = " ".join(f"{each}:8080" for each in addresses)
    looks = f"for at in {seen}; do timeout 2 wget -qO- http://$at/hello 2>/dev/null && echo $at; done; true"
    own = next(iter(on.inspect(str(db.token["name"]))["NetworkSettings"]["Networks"].values()))["IPAddress"]
    reached = set(run(target, looks, db).split()) - {"hello"}
    assert reached <= {f"{own}:8080", *(f"{each}:8080" for each in forwarder_of(on, db))}
    assert f"{own}:8080" in reached


def test_dockers_own_internal_network_would_lead_to_the_machine(on: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks.NetworkKind, "options", {})
    target = on.target()
    (db,) = target.services.start(OWNER, [msgspec.structs.replace(DB, ports=())])
    assert "reached" in run(target, ways_out(on), db)


def test_a_loopback_port_of_the_engines_choice_leads_to_it_and_only_from_the_machine_itself(on: Bed) -> None:
    target, other = on.target(), on.target()
    (db,), (foreign,) = target.services.start(OWNER, [DB]), other.services.start(OWNER, [DB])
    for each in (db, foreign):
        assert each.wait_ready(halt()) is None
        at = each.at(Place.VM)
        assert at is not None
        asks = f"exec 3<>/dev/tcp/{at.host}/{at.ports[8080]}; echo 'GET /hello HTTP/1.0' >&3; echo >&3; cat <&3"
        assert on.vm.ssh(f"bash -c {shlex.quote(asks)}").stdout.endswith("hello \n")
        bound = on.vm.sh(f"ss -ltnH 'sport = :{at.ports[8080]}'").stdout
        assert "127.0.0.1:" in bound
        assert "0.0.0.0:" + str(at.ports[8080]) not in bound
    assert db.at(Place.VM) != foreign.at(Place.VM)
    assert db.at(Place.LOCAL) is None


def forwarder_of(on: Bed, service: RunningService) -> list[str]:
    forwarder = service.token["forwarder"]
    assert isinstance(forwarder, dict)
    joined = on.inspect(str(forwarder["container"]))["NetworkSettings"]["Networks"]
    return [each["IPAddress"] for each in joined.values()]
