"""A host that lost the VM begins, writes and removes nothing there, even if it comes late."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator

import pytest

from pccpipe.detached import programs
from pccpipe.detached.lane import new_mark
from pccpipe.detached.programs import CommandRef, RunDir
from pccpipe.detached.running import DetachedRunning
from pccpipe.errors import Fenced
from pccpipe.machine import lease
from pccpipe.machine.gate import Gate, plain
from pccpipe.machine.lease import Lease
from pccpipe.machine.retry import reconnecting
from pccpipe.ssh.connection import Connection
from pccpipe.target import Command, ContainerSettings, Running
from pccpipe.targets.container import ContainerTarget
from pccpipe.targets.vm import VmTarget
from tests.targets.conftest import vm_spec
from tests.targets.stand import read_all, until
from tests.testbed.vm import VM

BOX = ContainerSettings("bb:latest", network="none")


class Host:
    """A process of a run on some host: its connection, its lease, its targets."""

    def __init__(self, vm: VM, run_id: str) -> None:
        self.connection = Connection(vm_spec(vm))
        self.gate = Gate(f"{vm.root}/.system")
        self.vm, self.run_id = vm, run_id
        self.target = VmTarget(self.connection, run_id, vm.root, gate=self.gate)
        workspace = self.target.workspace
        self.containers = ContainerTarget(
            self.connection, run_id, self.target.state, lambda: workspace, gate=self.gate, root=vm.root
        )
        self.lease: Lease | None = None

    def take(self, *, resumes: bool, stale_after: float = 60.0, beat_every: float = 600.0) -> Host:
        self.lease = Lease(
            self.connection,
            self.vm.root,
            self.run_id,
            holder="laptop pid 12",
            resumes=resumes,
            stale_after=stale_after,
            beat_every=beat_every,
            on_lost=self.connection.fence,
            gate=self.gate,
        )
        self.lease.acquire(0, lambda: True, lambda _: None)
        self.connection.begin_with(self.lease.hello, self.gate.guard)
        self.target.open()
        return self

    def command(self, script: str, name: str, container: ContainerSettings | None = None) -> Command:
        return Command(f"{name}-1", name, 1, script, limit=120, container=container)

    def close(self) -> None:
        for target in (self.containers, self.target):
            target.take_over()
            target.close()
        if self.lease:
            self.lease.release()
        self.connection.close()


@pytest.fixture
def hosts(vm: VM) -> Iterator[Callable[..., Host]]:
    made: list[Host] = []
    run_id = f"gated-{uuid.uuid4().hex[:8]}"

    def make(run: str = run_id) -> Host:
        made.append(Host(vm, run))
        return made[-1]

    yield make
    for host in reversed(made):
        host.close()
    assert vm.sh(f"ls -d {vm.root}/.system/run-state/gated-* {vm.root}/.system/gates || true").stdout == ""
    assert lanes(vm) == []
    vm.sh(f"rm -rf {vm.root}/.system/run-workspaces/gated-* /tmp/marks")


def lanes(vm: VM) -> list[str]:
    """Return the processes in the folders of lanes."""
    return vm.sh(
        "ls -ld /proc/[0-9]*/cwd 2>/dev/null | grep /lane- | sed 's,.*/proc/,,; s,/cwd.*,,' || true"
    ).stdout.split()


def marks(vm: VM) -> list[str]:
    return vm.sh("cat /tmp/marks 2>/dev/null || true").stdout.split()


def finish(running: Running) -> None:
    assert read_all(running)[2].code == 0
    running.discard()


def send_behind(host: Host, running: DetachedRunning, script: str) -> None:
    """Send a command to a lane that is busy with another one: the lane reads it when that has ended."""
    lane = running._lane
    assert lane
    place = RunDir(host.run_id, host.target.state, gate=host.gate)
    command = host.command(script, "late")
    ref = CommandRef(command.id, new_mark(), lane.folder, lane.offsets)
    lane.send(programs.begin(place, ref, command, host.target.workspace))


def test_a_queued_command_does_not_begin_after_its_host_lost_the_vm(
    hosts: Callable[..., Host],
) -> None:
    first = hosts().take(resumes=False)
    running = first.target.start(first.command("sleep 4; echo first >>/tmp/marks", "first"))
    assert isinstance(running, DetachedRunning)
    send_behind(first, running, "echo late >>/tmp/marks")
    second = hosts().take(resumes=True)
    token = running.token
    followed = second.target.attach(token)
    finish(followed)
    until(lambda: len(lanes(second.vm)) <= 2)
    time.sleep(1)
    assert marks(second.vm) == ["first"]
    with pytest.raises(Fenced):
        first.target.start(first.command("echo later >>/tmp/marks", "later"))
    assert marks(second.vm) == ["first"]


def test_a_lane_that_was_stopped_when_its_host_lost_the_vm_begins_nothing(hosts: Callable[..., Host]) -> None:
    first = hosts().take(resumes=False)
    vm = first.vm
    finish(first.target.start(first.command("true", "warm")))
    shells = lanes(vm)
    assert len(shells) == 5
    vm.sh(f"kill -STOP {' '.join(shells)}")

    def begin() -> None:
        with contextlib.suppress(Fenced):
            first.target.start(first.command("echo late >>/tmp/marks", "late"))

    beginner = threading.Thread(target=begin)
    beginner.start()
    time.sleep(1)
    second = hosts().take(resumes=True)
    vm.sh(f"kill -CONT {' '.join(shells)} 2>/dev/null || true")
    beginner.join(30)
    assert not beginner.is_alive()
    assert second.target.find(second.command("", "late")) is None
    time.sleep(1)
    assert marks(vm) == []


def test_lanes_end_when_another_run_takes_the_vm_over(hosts: Callable[..., Host]) -> None:
    first = hosts().take(resumes=False, stale_after=2.0)
    for name in ("a", "b"):
        finish(first.target.start(first.command("true", name)))
    assert lanes(first.vm)
    first.connection.close()
    time.sleep(3)
    second = hosts("gated-other").take(resumes=False, stale_after=2.0)
    until(lambda: not lanes(second.vm))
    second.close()
    # A process that resumes the first run later finds its files, and removes them.
    hosts().take(resumes=True)


def test_a_container_created_before_the_vm_was_lost_does_not_start(
    hosts: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = hosts().take(resumes=False)
    first.containers.open()
    said: list[str] = []

    def start(container: str) -> None:
        hosts().take(resumes=True)
        # The call is still on its way to the engine, and comes late.
        late = first.vm.sh(f"docker start {container}", check=False)
        said.append(late.stdout + late.stderr)
        original(container)

    original = first.containers._starter._start
    monkeypatch.setattr(first.containers._starter, "_start", start)
    command = first.command("echo late >/workspace/late", "late", BOX)
    with pytest.raises(Fenced):
        first.containers.start(command)
    assert "bind source path does not exist" in said[0]
    assert first.vm.sh(f"ls {first.target.workspace}").stdout == ""


def test_a_host_that_lost_the_vm_does_nothing_there_even_while_connected(
    hosts: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = hosts().take(resumes=False)
    vm = first.vm
    first.containers.open()
    finish(first.target.start(first.command("true", "warm")))
    whole = lease.program()
    # As with a server other than OpenSSH.
    blind = whole.replace('pcc_end_session "${pcc_word%%.*}" "${pcc_word#*.}"', ":").replace(
        "pcc_end_lanes() (", "pcc_end_lanes() ( exit"
    )
    monkeypatch.setattr(lease, "program", lambda: blind)
    hosts().take(resumes=True)
    with pytest.raises(Fenced):
        first.target.start(first.command("echo late >>/tmp/marks", "late"))
    with pytest.raises(Fenced):
        first.connection.run("echo late >>/tmp/marks")
    with pytest.raises(Fenced):
        first.connection.popen("echo late >>/tmp/marks")
    with pytest.raises(Fenced):
        first.containers.start(first.command("echo late >/workspace/late", "late", BOX))
    assert marks(vm) == []
    assert first.lease
    assert first.lease.lost


def test_a_run_that_took_over_checks_again_after_its_first_start(hosts: Callable[..., Host]) -> None:
    first = hosts().take(resumes=False)
    vm, gates = first.vm, f"{first.vm.root}/.system/gates"
    second = hosts().take(resumes=True)
    # As if the first host made it at this moment.
    assert second.gate.number > 1
    vm.sh(f"ln -s .. {gates}/1")
    assert vm.sh(f"ls {gates}").stdout.split() == ["1", str(second.gate.number)]
    finish(second.target.start(second.command("true", "own")))
    assert vm.sh(f"ls {gates}").stdout.split() == [str(second.gate.number)]


def test_a_gate_removed_by_hand_comes_back(hosts: Callable[..., Host]) -> None:
    host = hosts().take(resumes=False)
    for name in ("a", "b"):
        finish(host.target.start(host.command(f"echo {name} >>/tmp/marks", name)))
        host.vm.sh(f"rm -rf {host.vm.root}/.system/gates")
    assert reconnecting(host.connection, lambda: host.connection.run("echo well")).stdout == b"well\n"
    assert marks(host.vm) == ["a", "b"]


def test_plain_returns_the_path_without_the_gate() -> None:
    gate = Gate("/home/project/.system")
    path = "/home/project/.system/run-state/r/commands/a-1.in"
    assert gate.through(path) == path
    gate.open(7, lambda: None, None)
    assert gate.through(path) == "/home/project/.system/gates/7/run-state/r/commands/a-1.in"
    assert plain(gate.through(path)) == path
    assert gate.through("/elsewhere") == "/elsewhere"
