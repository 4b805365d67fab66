"""A container's hardening, seen from inside and in the engine's account; and each setting that loosens it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import msgspec.structs
import pytest

from pccpipe.errors import Unavailable
from pccpipe.executor.shortfall import shortfalls
from pccpipe.outcome import Place, Reason
from pccpipe.ssh.connection import Connection
from pccpipe.target import ContainerSettings, Isolation
from tests.targets.stand import Stand, read_all, read_until
from tests.targets.test_container import inspect, stand_on
from tests.testbed.vm import VM

PLAIN = ContainerSettings("bb:latest", network="none", memory=128 << 20, cpus=0.5, pids=64, home_size=2 << 20)

# The kernel's account of a process, from inside.
LOOK = """
grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status
echo "user $(id -u):$(id -g)"
echo "first $(tr '\\0' ' ' </proc/1/cmdline)"
awk '$2 ~ "^(/|/workspace|/pcc/.*|/tmp|/var/tmp)$" {print "mount", $2, $3, $4}' /proc/self/mounts
for name in net pid ipc; do readlink /proc/self/ns/$name; done
cd /sys/fs/cgroup
for f in memory/memory.limit_in_bytes memory.max; do [ -r $f ] && echo "memory $(cat $f)"; done
for f in pids/pids.max pids.max; do [ -r $f ] && echo "pids $(cat $f)"; done
:
"""


@pytest.fixture(scope="module")
def stand(vm: VM) -> Iterator[Stand]:
    connections: list[Connection] = []
    made = stand_on(vm, connections)
    made.target.open()
    yield made
    made.target.close()
    vm.sh(f"rm -rf {made.workspace} {made.state}")
    for connection in connections:
        connection.close()


def seen(stand: Stand, settings: ContainerSettings, script: str = LOOK) -> tuple[str, Isolation]:
    """Run a script in such a container; return its output, and the isolation for the record."""
    running = stand.start(script, container=settings)
    stdout, stderr, exit_ = read_all(running)
    running.discard()
    assert exit_.code == 0, stderr
    return stdout.decode(), running.isolation


def test_by_default_a_container_has_only_what_a_command_needs(stand: Stand, vm: VM) -> None:
    inside, had = seen(stand, PLAIN)
    for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb"):
        assert f"Cap{kind}:\t0000000000000000\n" in inside
    assert "NoNewPrivs:\t1\n" in inside
    assert "Seccomp:\t2\n" in inside
    assert "user 1000:1000\n" in inside
    assert "init" in re.findall("first (.*)", inside)[0]
    assert (f"memory {128 << 20}" in inside, "pids 64" in inside) == (True, True)
    mounts = dict(re.findall(r"mount (\S+) \S+ (\S+)", inside))
    assert mounts["/pcc/in"].startswith("ro,")
    assert {"nosuid", "nodev"} < set(mounts["/pcc/home"].split(","))
    assert "size=2048k" in mounts["/pcc/home"]
    assert "/tmp" not in mounts
    outside = vm.sh("readlink /proc/self/ns/net /proc/self/ns/pid /proc/self/ns/ipc").stdout.split()
    assert len(outside) == len(re.findall(r"^(?:net|pid|ipc):\[\d+\]$", inside, re.MULTILINE)) == 3
    assert not set(outside) & set(inside.split())

    assert (had.capabilities, had.shared, had.runtime, had.init) == ((), (), "runc", True)
    assert had.security[0] == "no-new-privileges"
    assert "seccomp=default" in had.security or "seccomp=builtin" in had.security
    assert (had.memory, had.cpus, had.pids, had.read_only_root) == (128 << 20, 0.5, 64, False)
    assert {mount.split(":")[1]: mount.split(":")[-1] for mount in had.mounts if mount.startswith("/")} == {
        "/workspace": "rw",
        "/pcc/in": "ro",
        "/pcc/out": "rw",
    }
    assert had.mounts[0].startswith("tmpfs:/pcc/home:")
    assert list(shortfalls(PLAIN, had)) == []


def test_home_takes_no_more_than_its_size(stand: Stand) -> None:
    said, _ = seen(stand, PLAIN, 'head -c 3000000 /dev/zero >"$HOME/large" 2>&1 || echo full')
    assert "full" in said


def facts(had: Isolation) -> dict[str, Any]:
    """Return a container's isolation without the fields that differ for each container."""
    mounts = tuple(re.sub("^/[^:]*", "", mount) for mount in had.mounts)
    return msgspec.structs.asdict(msgspec.structs.replace(had, container=None, mounts=mounts))


LOOSE: list[tuple[dict[str, Any], str, str]] = [
    ({"root": True, "capabilities": ("DAC_OVERRIDE",)}, "user 0:0\n", "CapEff:\t0000000000000002\n"),
    (
        {"new_privileges": True, "capabilities": ("NET_RAW",)},
        "CapBnd:\t0000000000002000\n",
        "CapEff:\t0000000000000000\n",
    ),
    ({"new_privileges": True}, "NoNewPrivs:\t0\n", "CapBnd:\t0000000000000000\n"),
    ({"seccomp": False}, "Seccomp:\t0\n", "NoNewPrivs:\t1\n"),
    ({"init": False}, "first sh /pcc/in/.script", "NoNewPrivs:\t1\n"),
    ({"pids": None}, "pids max\n", f"memory {128 << 20}\n"),
    ({"memory": None}, "pids 64\n", "memory 9223372036854771712\n"),
    ({"read_only_root": True}, "mount / overlay ro,", "mount /tmp tmpfs rw,nosuid,nodev,"),
]


@pytest.mark.parametrize(("change", "says", "says_too"), LOOSE, ids=[",".join(change) for change, _, _ in LOOSE])
def test_each_setting_loosens_only_itself_and_the_record_has_it(
    stand: Stand, change: dict[str, Any], says: str, says_too: str
) -> None:
    settings = msgspec.structs.replace(PLAIN, **change)
    inside, had = seen(stand, settings)
    assert says in inside
    # Control groups of version 2 call the limit so.
    assert says_too in inside.replace("memory max\n", "memory 9223372036854771712\n")
    assert list(shortfalls(settings, had)) == []
    _, usual = seen(stand, PLAIN, "true")
    differs = {name for name, value in facts(had).items() if value != facts(usual)[name]}
    recorded_as = {"root": {"user", "mounts"}, "new_privileges": {"security"}, "seccomp": {"security"}}
    recorded_as |= {"read_only_root": {"read_only_root", "mounts"}}
    assert differs == set().union(*(recorded_as.get(name, {name}) for name in change))


def test_the_hosts_network_is_recorded_as_shared(stand: Stand, vm: VM) -> None:
    settings = msgspec.structs.replace(PLAIN, network="host")
    inside, had = seen(stand, settings)
    assert vm.sh("readlink /proc/self/ns/net").stdout.strip() in inside
    assert (had.network, had.shared) == ("host", ("network",))
    assert list(shortfalls(settings, had)) == []


def test_apparmor_is_unconfined_only_on_request(stand: Stand, vm: VM) -> None:
    running = stand.start("echo up; sleep 100", container=msgspec.structs.replace(PLAIN, apparmor=False))
    read_until(running, b"up\n")
    assert running.isolation.security[:2] == ("no-new-privileges", "apparmor=unconfined")
    assert "apparmor=unconfined" in inspect(vm, running.isolation.container or "")["HostConfig"]["SecurityOpt"]
    running.stop(0.1)
    read_all(running)
    running.discard()


def test_another_runtime_runs_the_container_and_a_missing_one_is_reported(fresh_vm: VM) -> None:
    connections: list[Connection] = []
    stand = stand_on(fresh_vm, connections)
    runtimes = {"another": {"path": "/usr/sbin/runc"}, "uninstalled": {"path": "/usr/local/bin/runsc"}}
    fresh_vm.sh("cat >/etc/docker/daemon.json", stdin=json.dumps({"runtimes": runtimes}))
    fresh_vm.sh("kill -HUP $(cat /run/docker.pid)")
    deadline = time.monotonic() + 10
    while "another" not in fresh_vm.sh("docker info --format '{{json .Runtimes}}'").stdout:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    said, had = seen(stand, msgspec.structs.replace(PLAIN, runtime="another"), "echo fine")
    assert (said, had.runtime) == ("fine\n", "another")
    for name, words in (("runsc", "nknown"), ("uninstalled", "no such file")):
        with pytest.raises(Unavailable) as caught:
            stand.start("echo never", container=msgspec.structs.replace(PLAIN, runtime=name))
        assert caught.value.reason is Reason.RUNTIME_MISSING
        assert words in caught.value.words
        assert "/etc/docker/daemon.json" in caught.value.hint
    stand.target.close()
    assert fresh_vm.sh("docker ps -aq").stdout == ""
    for connection in connections:
        connection.close()


@pytest.mark.parametrize("init", [True, False])
def test_a_command_of_an_image_without_a_shell_never_begins(stand: Stand, vm: VM, init: bool) -> None:
    vm.sh("mkdir -p /tmp/bare && cd /tmp/bare && echo x >only && printf 'FROM scratch\\nCOPY only /\\n' >Dockerfile")
    vm.sh("docker build -q -t bare /tmp/bare")
    with pytest.raises(Unavailable) as caught:
        stand.start("echo never", container=msgspec.structs.replace(PLAIN, image="bare", init=init))
    assert caught.value.reason is Reason.SHELL_MISSING
    assert "the image bare has no /bin/sh" in caught.value.words
    # The container is removed too.
    vm.sh("docker rmi bare")


def test_settings_that_the_engine_discarded_are_named() -> None:
    had = Isolation(
        place=Place.CONTAINER,
        host="h",
        user="1000:1000",
        network="host",
        capabilities=("DEFAULT",),
        security=("seccomp=none",),
        shared=("network", "pid"),
    )
    asked = msgspec.structs.replace(PLAIN, runtime="runsc", read_only_workspace=True, read_only_root=True)
    assert list(shortfalls(asked, had)) == [
        "memory unlimited instead of 134217728",
        "cpus unlimited instead of 0.5",
        "pids unlimited instead of 64",
        "network host instead of none",
        "runtime unknown instead of runsc",
        "a writable workspace",
        "a writable root file system",
        "capabilities DEFAULT",
        "no `no-new-privileges`",
        "no filter of system calls (this engine has none)",
        "the host's network, pid",
    ]
