"""A run takes a lease over: the connection of the old holder ends, and a new one first asks for the lease."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pccpipe.errors import Fenced
from pccpipe.machine.gate import Gate
from pccpipe.machine.lease import Lease, read_lease
from pccpipe.machine.local import LocalMachine
from pccpipe.outcome import Reason
from pccpipe.ssh.connection import Connection
from tests.machine.test_lease import HOLDER, HereWithFaults, die, lease, link, take, until
from tests.targets.conftest import vm_spec
from tests.testbed.vm import VM


class Holder:
    """A process of the run on some host: its connection, and its lease."""

    def __init__(self, vm: VM, *, resumes: bool = False, beat_every: float = 600.0) -> None:
        self.connection = Connection(vm_spec(vm))
        self.gate = Gate(f"{vm.root}/.system")
        self.lease = Lease(
            self.connection,
            vm.root,
            "leased-1",
            holder=HOLDER,
            resumes=resumes,
            beat_every=beat_every,
            on_lost=self.connection.fence,
            gate=self.gate,
        )

    def take(self) -> None:
        take(self.lease)
        self.connection.begin_with(self.lease.hello, self.gate.guard)

    def says(self, script: str) -> str:
        return self.connection.run(script, 10).stdout.decode().strip()


@pytest.fixture
def holders(vms: Callable[..., VM]) -> Iterator[tuple[VM, Callable[..., Holder]]]:
    vm = vms(images=False)
    made: list[Holder] = []

    def make(**settings: bool) -> Holder:
        made.append(Holder(vm, **settings))
        return made[-1]

    yield vm, make
    for holder in made:
        holder.lease.release()
        holder.connection.close()


def test_the_connection_of_a_host_that_lost_the_lease_ends_for_good(
    holders: tuple[VM, Callable[..., Holder]],
) -> None:
    vm, make = holders
    first = make()
    first.take()
    stream = first.connection.popen("exec cat")
    script = "echo begun >/tmp/work; sleep 1; echo ended >>/tmp/work"
    work = first.connection.popen(f"mkdir -p /tmp/lane-0 && cd /tmp/lane-0 && sh -c '{script}'; exec cat")
    until(lambda: vm.sh("cat /tmp/work", check=False).stdout == "begun\n")
    housework = first.connection.popen("sleep 77.25; touch /tmp/removed")
    until(lambda: vm.pids("sleep 77.25"))

    commands = f"{vm.root}/.system/run-state/leased-1/commands"
    first.says(f"sleep 88.25 >/dev/null 2>&1 & mkdir -p {commands}; echo $! 1 boot >{commands}/work-1.hold")

    second = make(resumes=True)
    second.take()
    with pytest.raises(ConnectionError):
        stream.recv(1)
    with pytest.raises(Fenced) as caught:
        first.says("touch /tmp/late")
    assert caught.value.reason is Reason.FENCED
    assert "was taken over from this run: run leased-1 (laptop pid 12)" in caught.value.words
    assert first.lease.lost
    with pytest.raises(Fenced):
        first.connection.dial("/run/docker.sock")
    # The holder's own work has ended, but its command has not.
    until(lambda: vm.sh("cat /tmp/work").stdout == "begun\nended\n")
    assert vm.pids("sleep 77.25") == []
    assert vm.pids("sleep 88.25"), "it holds a container's deadline"
    assert vm.sh("ls /tmp/late /tmp/removed 2>/dev/null || true").stdout == ""
    first.lease.release()
    assert second.says("echo well") == "well"
    assert second.lease.lost is None
    for process in (work, housework):
        process.close()


def test_a_reconnected_host_keeps_its_lease(
    holders: tuple[VM, Callable[..., Holder]],
) -> None:
    vm, make = holders
    first = make()
    first.take()
    assert first.says("echo $PPID")
    before = vm.sh(f"readlink {vm.root}/.system/lease/1").stdout.split()
    assert before[-1].startswith("ssh:")
    vm.kill_sessions()
    assert first.says("echo well") == "well"
    after = vm.sh(f"readlink {vm.root}/.system/lease/2").stdout.split()
    assert after[:-1] == before[:-1], "it is the same lease, held since the same moment"
    assert after[-1] != before[-1]
    state = read_lease(first.connection, vm.root)
    assert state
    assert state.holder == HOLDER


def test_a_process_that_was_suspended_asks_before_it_continues(tmp_path: Path) -> None:
    root = str(tmp_path)
    lost: list[str] = []
    away = Lease(LocalMachine(), root, "leased-1", holder=HOLDER, beat_every=600, on_lost=lost.append)
    take(away)
    die(away)
    away._end.clear()
    winner = lease(LocalMachine(), root, "leased-1", resumes=True)
    take(winner)
    away.check()
    away._heard -= 901
    with pytest.raises(Fenced, match="taken over from this run"):
        away.check()
    assert lost == [away.lost]
    away.release()
    winner.check()
    winner.release()


def test_a_lease_of_an_earlier_version_without_a_connection_can_be_taken_over(tmp_path: Path) -> None:
    root = str(tmp_path)
    machine = HereWithFaults()
    earlier = lease(machine, root, "leased-1", beat_every=0.2)
    take(earlier)
    assert "ssh:" not in str(link(root).readlink())
    later = lease(LocalMachine(), root, "leased-1", resumes=True)
    take(later)
    until(lambda: earlier.lost)
    later.release()
    time.sleep(0.1)
    assert read_lease(LocalMachine(), root) is None
