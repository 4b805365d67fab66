"""A container ends at its deadline although its command killed the watchdog inside and pccpipe is gone."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pccpipe.detached.programs import RunDir
from pccpipe.docker_api import holder
from pccpipe.machine.lease import Lease, read_lease
from pccpipe.machine.local import LocalMachine
from pccpipe.ssh.connection import Connection
from pccpipe.target import Exit
from pccpipe.targets.container import ContainerTarget
from tests.targets.stand import Stand, read_all, read_until, until
from tests.targets.test_container import BOX, KILL_AFTER, containers, inspect, name_of, stand_on
from tests.targets.test_container_account import as_the_account, opened
from tests.testbed.engine import Engine as LocalEngine
from tests.testbed.vm import VM

ALONE = """
trap '' TERM HUP
for path in /proc/[0-9]*; do
  pid=${path#/proc/}
  [ $pid = 1 ] || [ $pid = $$ ] || kill -KILL $pid
done
echo ready
while :; do sleep 1; done
"""
"""Kills every process of the container but the first one and itself."""
LIMIT = 5.0
WAYS = ["curl", "perl", "python3", "docker"]


@pytest.fixture
def connections() -> Iterator[list[Connection]]:
    made: list[Connection] = []
    yield made
    for connection in made:
        connection.close()


@pytest.fixture
def stand(vm: VM, connections: list[Connection]) -> Iterator[Stand]:
    made = stand_on(vm, connections)
    made.target.open()
    yield made
    made.target.close()
    assert containers(vm, made) == []
    vm.sh(f"rm -rf {made.workspace} {made.state}")
    until(lambda: holders(vm) == [])


def holders(vm: VM) -> list[str]:
    """List the holders: shells of the login without a connection."""
    found = vm.sh("for f in /home/project/.system/run-state/*/commands/*.hold; do cat $f; done 2>/dev/null || true")
    return [line for line in found.stdout.splitlines() if is_alive(vm, line)]


def is_alive(vm: VM, line: str) -> bool:
    pid, start, _ = line.split()
    stat = vm.sh(f"cat /proc/{pid}/stat 2>/dev/null || true").stdout
    return stat.rpartition(")")[2].split()[19:20] == [start]


def status(vm: VM, name: str) -> str:
    return str(inspect(vm, name)["State"]["Status"])


def test_a_command_that_kills_its_watchdog_ends_at_its_deadline_without_pccpipe(
    vm: VM, stand: Stand, connections: list[Connection]
) -> None:
    running = stand.start(ALONE, limit=LIMIT)
    read_until(running, b"ready\n")
    token, name = running.token, name_of(stand)
    assert len(holders(vm)) == 1
    for connection in connections:
        connection.close()
    time.sleep(LIMIT - 2)
    assert status(vm, name) == "running"
    until(lambda: status(vm, name) == "exited", 2 + KILL_AFTER + 12)
    until(lambda: holders(vm) == [])
    again = stand.again()
    again.open()
    out, _, exit_ = read_all(again.attach(token))
    assert (out, exit_) == (b"ready\n", Exit(137, "KILL", timed_out=True))
    again.close()


def test_term_comes_before_kill(stand: Stand, connections: list[Connection]) -> None:
    obedient = ALONE.replace("echo ready", "sleep 1; trap 'echo heard; exit 3' TERM; echo ready")
    running = stand.start(obedient, limit=LIMIT)
    read_until(running, b"ready\n")
    token = running.token
    for connection in connections:
        connection.close()
    time.sleep(LIMIT + 5)
    again = stand.again()
    again.open()
    out, _, exit_ = read_all(again.attach(token))
    assert (out, exit_) == (b"ready\nheard\n", Exit(3, timed_out=True))
    again.close()


def test_a_holder_asks_an_engine_again_that_is_away_at_the_deadline(
    vm: VM, stand: Stand, connections: list[Connection]
) -> None:
    running = stand.start(ALONE, limit=LIMIT)
    read_until(running, b"ready\n")
    for connection in connections:
        connection.close()
    vm.sh("mv /run/docker.sock /run/docker.away")
    try:
        time.sleep(LIMIT + KILL_AFTER + 6)
    finally:
        vm.sh("mv /run/docker.away /run/docker.sock")
    assert status(vm, name_of(stand)) == "running"
    until(lambda: status(vm, name_of(stand)) == "exited", 20)


def test_a_holder_ends_with_its_command(vm: VM, stand: Stand) -> None:
    assert stand.run("echo one")[2] == Exit(0)
    running = stand.start("echo up; sleep 100")
    read_until(running, b"up\n")
    until(lambda: len(holders(vm)) == 1)
    # It saw its container, and now sleeps for long.
    time.sleep(3)
    running.stop(0)
    read_all(running)
    running.discard()
    stand.target.close()
    assert vm.sh(f"ls {stand.state} 2>/dev/null || true").stdout == ""
    # Nothing of it is left, also not its `sleep`.
    until(lambda: vm.sh("pgrep -u pcc -x sleep || true").stdout == "", 3)


def test_a_holder_whose_file_is_gone_ends(vm: VM, stand: Stand) -> None:
    running = stand.start("echo up; sleep 100")
    read_until(running, b"up\n")
    (line,) = vm.sh(f"cat {stand.state}/commands/*.hold").stdout.splitlines()
    vm.sh(f"rm {stand.state}/commands/*.hold")
    until(lambda: not is_alive(vm, line), 15)
    running.stop(0)
    read_all(running)
    running.discard()


def test_the_lease_of_a_run_with_a_running_container_is_alive(
    vm: VM, stand: Stand, connections: list[Connection]
) -> None:
    lease = Lease(connections[0], vm.root, stand.run_id, holder="h", stale_after=0.5, beat_every=60)
    lease.acquire(0, lambda: False, lambda _: None)
    running = stand.start("echo up; sleep 100")
    read_until(running, b"up\n")
    time.sleep(2)
    state = read_lease(connections[0], vm.root, 0.5)
    assert state
    assert not state.is_stale
    running.stop(0)
    read_all(running)
    running.discard()
    stand.target.close()
    state = read_lease(connections[0], vm.root, 0.5)
    assert state
    assert state.is_stale
    lease.release()


def test_with_an_account_the_holder_runs_as_the_login_and_the_account_cannot_end_it(vm: VM) -> None:
    with opened(vm) as (stand, _):
        assert isinstance(stand.target, ContainerTarget)
        stand.target._files._kill_after = stand.target._starter._kill_after = KILL_AFTER
        running = stand.start(ALONE, limit=LIMIT)
        read_until(running, b"ready\n")
        (line,) = holders(vm)
        pid = line.split()[0]
        assert vm.sh(f"ps -o user= -p {pid}").stdout.strip() == vm.user
        as_the_account(vm, f"kill -KILL {pid}; kill -KILL -1; rm -rf {stand.state}")
        assert is_alive(vm, line)
        # The account's `kill -1` also ended the container's processes.
        read_all(running)
        running.discard()
        running = stand.start(ALONE, limit=LIMIT)
        read_until(running, b"ready\n")
        until(lambda: status(vm, name_of(stand, 2)) == "exited", LIMIT + KILL_AFTER + 12)
        assert read_all(running)[2].timed_out
        running.discard()


def test_root_needs_no_program_to_ask_the_engine(vm: VM, stand: Stand) -> None:
    running = stand.start(ALONE, limit=600)
    read_until(running, b"ready\n")
    other = stand.start("echo up; sleep 100")
    read_until(other, b"up\n")
    place = RunDir(stand.run_id, stand.state)
    call = holder.start(place, "step-1", "no-such-container", 3, 1)
    vm.sh(f"{without(WAYS)}{holder.functions('/nowhere')}{call}")
    until(lambda: status(vm, name_of(stand)) == "exited", 20)
    assert status(vm, name_of(stand, 2)) == "running"
    for each in (running, other):
        each.stop(0)
        read_all(each)
        each.discard()


def without(programs: list[str]) -> str:
    """Return shell lines after which `command -v` finds none of these programs."""
    names = "|".join(programs)
    return f'command() {{ case $2 in {names}) return 1 ;; esac; [ -n "$(which $2)" ]; }}\n'


@pytest.mark.parametrize("way", WAYS)
def test_every_program_that_can_ask_the_engine_works(local_engine: LocalEngine, tmp_path: Path, way: str) -> None:
    name = f"held-{way}"
    local_engine.docker(
        "run", "-d", "--network", "none", "--name", name, "bb:latest", "/bin/sh", "-c", "trap '' TERM; sleep 1000"
    )
    place = RunDir("run", str(tmp_path / "run"))
    (tmp_path / "run/commands").mkdir(parents=True)
    others = [other for other in WAYS if other != way]
    socket = local_engine.socket
    done = LocalMachine().run(
        f"{without(others)}{holder.functions(str(socket))}{holder.probe()}\n{holder.start(place, 'a', name, 3, 1)}"
    )
    assert (done.code, done.stdout.decode().strip(), done.stderr) == (0, way, b"")
    time.sleep(1.5)
    shown = ("inspect", "-f", "{{.State.Running}} {{.State.ExitCode}}", name)
    assert local_engine.docker(*shown).strip() == "true 0"
    until(lambda: local_engine.docker(*shown).strip() == "false 137", 20)
    local_engine.docker("rm", "-f", name)


def test_a_machine_without_a_program_to_ask_the_engine_is_reported() -> None:
    done = LocalMachine().run(f"{without(WAYS)}{holder.functions('/nowhere')}{holder.probe()}")
    assert done.stdout == b"proc\n"
    nobody = f"{without(WAYS)}{holder.functions('/nowhere')}{holder.probe()}"
    done = LocalMachine().run(f"exec setpriv --reuid 65534 --regid 65534 --clear-groups sh -c {shlex.quote(nobody)}")
    assert done.stdout == b"\n"


def test_a_local_container_ends_at_its_deadline(local_engine: LocalEngine, tmp_path: Path) -> None:
    state, workspace = tmp_path / "state", tmp_path / "workspace"
    workspace.mkdir()

    def make() -> ContainerTarget:
        return ContainerTarget(
            LocalMachine(),
            "run-held",
            str(state),
            lambda: str(workspace),
            str(local_engine.socket),
            kill_after=KILL_AFTER,
        )

    stand = Stand("run-held", make(), make, lambda _: "", str(state), str(workspace), {"container": BOX})
    stand.target.open()
    running = stand.start(ALONE, limit=LIMIT)
    read_until(running, b"ready\n")
    shown = ("inspect", "-f", "{{.State.Status}}", name_of(stand))
    until(lambda: local_engine.docker(*shown).strip() == "exited", LIMIT + KILL_AFTER + 12)
    assert read_all(running)[2] == Exit(137, "KILL", timed_out=True)
    stand.target.close()
