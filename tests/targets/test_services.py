"""Services on a real engine: the image's own ways, the network without a way out, the loopback ports, and their end."""

from __future__ import annotations

import json
import shlex
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from pccpipe.cancel import Cancel, Deadline, Halt
from pccpipe.docker_api import networks
from pccpipe.docker_api.engine import DockerEngine
from pccpipe.errors import Halted, Lost, Unavailable
from pccpipe.gc import collect_over
from pccpipe.gc.decide import ThingKind
from pccpipe.gc.report import RemovalStatus
from pccpipe.outcome import Place, Reason
from pccpipe.service import ReadyCheck, RunningService, ServiceCommand, ServiceOwner
from pccpipe.spec.services import CAPABILITIES
from pccpipe.ssh.connection import Connection
from pccpipe.target import Chunk, Command, ContainerSettings, Exit
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
RUN printf '#!/bin/sh\\necho broken >&2; exit 3\\n' >/fail && chmod 755 /fail
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
        for tag, line in {
            "health": "HEALTHCHECK --interval=1s CMD test -e /data/up",
            "broken": 'ENTRYPOINT ["/no/such"]',
        }.items():
            vm.sh(f"docker build -q -t service:{tag} -", stdin=f"FROM {IMAGE}\n{line}\n")
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


def test_a_step_with_its_own_way_out_keeps_it(on: Bed) -> None:
    target = on.target()
    (db,) = target.services.start(OWNER, [DB])
    assert db.wait_ready(halt()) is None
    script = f"{ways_out(on)}wget -qO- http://db:8080/hello"
    said = run(target, script, db, network="bridge")
    assert f"reached {on.vm.host}:22" in said
    assert said.endswith("hello \n")


def test_a_service_with_a_way_out_says_so_and_has_one(on: Bed) -> None:
    target = on.target()
    db, cache = target.services.start(
        OWNER, [msgspec.structs.replace(DB, network="bridge"), msgspec.structs.replace(DB, name="cache", ports=())]
    )
    script = shlex.quote(ways_out(on))
    assert f"reached {on.vm.host}:22" in on.docker(f"exec {db.token['name']} sh -c {script}")
    assert on.docker(f"exec {cache.token['name']} sh -c {script}") == ""
    assert "hello" in on.docker(f"exec {cache.token['name']} wget -qO- http://db:8080/hello")


def test_secrets_are_files_in_memory_and_nowhere_else(on: Bed) -> None:
    value = f"s3cr3t '\"$HOME {uuid.uuid4().hex}"
    target = on.target()
    service = msgspec.structs.replace(
        DB, secrets={"DB_PASSWORD": value}, env={"PASSWORD_FILE": "/run/secrets/DB_PASSWORD", "NAME": "x"}
    )
    (db,) = target.services.start(OWNER, [service])
    assert db.wait_ready(halt()) is None
    assert run(target, "wget -qO- http://db:8080/password; wget -qO- http://db:8080/hello", db) == f"{value}hello x\n"
    assert "serving: httpd -f -p 8080 -h /data" in output(db, "/data")
    name, needle = str(db.token["name"]), value[-32:]
    assert needle not in json.dumps(on.inspect(name))
    assert needle not in on.docker(f"logs {name}")
    assert needle not in on.vm.sh("cat /proc/*/cmdline /proc/*/environ 2>/dev/null | tr '\\0' ' '; true").stdout
    assert on.docker(f"exec {name} stat -f -c %T /run/secrets") == "tmpfs"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"command": ("/fail",)}, "ended with exit code 3"),
        ({"ready": ReadyCheck("test -e /data/never", 0.1, 1.0)}, "its check exited with 1"),
        ({"ports": (9999,), "ready_timeout": 1.0}, "nothing listens on its port 9999"),
    ],
    ids=["ended", "check", "port"],
)
def test_a_service_that_is_not_ready_says_why(on: Bed, change: dict[str, Any], says: str) -> None:
    target = on.target()
    (db,) = target.services.start(OWNER, [msgspec.structs.replace(DB, **change)])
    why = db.wait_ready(halt())
    assert why is not None
    assert says in why.words
    if "ended" in says:
        assert why.exit_code == 3
        assert "broken" in why.output


def test_a_check_of_its_own_or_of_the_image_makes_it_ready(on: Bed) -> None:
    target = on.target()
    checked = msgspec.structs.replace(DB, name="checked", ports=(), ready=ReadyCheck("test -e /data/up", 0.1, 20.0))
    healthy = msgspec.structs.replace(DB, name="healthy", ports=(), image="service:health")
    for each in target.services.start(OWNER, [checked, healthy]):
        late = threading.Timer(1.0, on.docker, [f"exec {each.token['name']} touch /data/up"])
        late.start()
        assert each.wait_ready(halt()) is None
        assert on.docker(f"exec {each.token['name']} ls /data/up") == "/data/up"


def test_a_wait_ends_with_a_halt(on: Bed) -> None:
    (db,) = on.target().services.start(OWNER, [msgspec.structs.replace(DB, ports=(9999,))])
    with pytest.raises(Halted):
        db.wait_ready(halt(1.0))


def test_a_missing_image_is_unavailable_and_nothing_is_left_of_the_owner(on: Bed) -> None:
    db = msgspec.structs.replace(DB, ports=())
    with pytest.raises(Unavailable) as caught:
        on.target().services.start(OWNER, [db, msgspec.structs.replace(db, name="x", image="nothing:here")])
    assert caught.value.reason is Reason.IMAGE_MISSING
    assert on.things() == []
    with pytest.raises(Unavailable) as refused:
        on.target().services.start(OWNER, [db, msgspec.structs.replace(db, name="x", image="service:broken")])
    assert refused.value.reason is Reason.START_REFUSED
    assert on.things() == []


def test_another_process_attaches_and_the_end_removes_volume_and_network(on: Bed) -> None:
    target = on.target("run-attached")
    db, cache = target.services.start(OWNER, [DB, msgspec.structs.replace(DB, name="cache", ports=())])
    assert db.wait_ready(halt()) is None
    again = on.target("run-attached")
    found = again.services.attach(json.loads(json.dumps(db.token)), DB)
    assert (found.at(Place.VM), found.network) == (db.at(Place.VM), db.network)
    assert "serving" in output(found, "serving")
    assert found.wait_ready(halt()) is None
    assert found.end(2.0) == ""
    assert isinstance(read_all(found.running)[2], Exit)
    assert len(on.docker("network ls -q --filter label=pccpipe.owner").split()) == 1
    assert cache.end(2.0) == ""
    assert on.docker("network ls -q --filter label=pccpipe.owner") == ""
    with pytest.raises(Lost):
        again.services.attach(db.token, DB)


def test_a_start_replaces_what_a_killed_process_began_for_the_owner(on: Bed) -> None:
    first = on.target("run-killed").services.start(OWNER, [DB])[0]
    second = on.target("run-killed").services.start(OWNER, [DB])[0]
    assert (
        on.docker("ps -aq --filter label=pccpipe.service --no-trunc").split().count(str(first.token["container"])) == 0
    )
    assert second.wait_ready(halt()) is None


def test_the_end_of_a_run_and_gc_remove_what_a_killed_process_left_and_nothing_of_another_run(on: Bed) -> None:
    left = on.target("run-left")
    left.services.start(OWNER, [DB])
    # Another project's run of the same id, with another root.
    workspace = f"{on.vm.root}/other"
    connection = Connection(vm_spec(on.vm))
    other = ContainerTarget(connection, "run-left", f"{workspace}/.system/run-state/run-left", lambda: workspace)
    other.open()
    (living,) = other.services.start(OWNER, [DB])
    again = on.target("run-left")
    again.take_over()
    assert again.close() == ()
    assert living.wait_ready(halt()) is None
    on.target("run-gone").services.start(OWNER, [DB])
    engine = DockerEngine(connection)
    kept = collect_over(connection, engine, on.vm.root, lambda _: False)
    assert [each.status for each in kept.removals if each.status is not RemovalStatus.KEPT] == []
    report = collect_over(connection, engine, on.vm.root, lambda _: True)
    assert {each.thing.kind for each in report.removals} >= {ThingKind.CONTAINER, ThingKind.NETWORK}
    assert not report.has_failed
    assert living.wait_ready(halt()) is None
    assert other.close() == ()
    connection.close()


def forwarder_of(on: Bed, service: RunningService) -> list[str]:
    forwarder = service.token["forwarder"]
    assert isinstance(forwarder, dict)
    joined = on.inspect(str(forwarder["container"]))["NetworkSettings"]["Networks"]
    return [each["IPAddress"] for each in joined.values()]
