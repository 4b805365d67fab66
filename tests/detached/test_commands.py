"""Breaks the connection at the worst moment: while a command begins."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pccpipe.detached import programs
from pccpipe.detached.commands import Detached
from pccpipe.detached.programs import RunDir
from pccpipe.errors import Unavailable
from pccpipe.machine.base import Process
from pccpipe.machine.local import LocalMachine
from pccpipe.outcome import Place as TargetPlace
from pccpipe.target import Command, Exit, Isolation
from tests.targets.stand import read_all, until

ISOLATION = Isolation(TargetPlace.LOCAL, "localhost", "0:0")


class BreakingProcess:
    """A program whose connection breaks at the next `pcc_begin`."""

    def __init__(self, inner: Process, machine: BreakingMachine) -> None:
        self._inner = inner
        self._machine = machine
        self._broken = False

    def sendall(self, data: bytes) -> None:
        self._check()
        if b"\npcc_begin " in data and self._machine.breaks:
            self._broken = True
            self._machine.breaks -= 1
            if not self._machine.swallows:
                self._inner.sendall(data)
                # The command certainly begins before pccpipe asks whether it did.
                time.sleep(0.5)
            self._machine.swallowed.append((self._inner, data))
            return
        self._inner.sendall(data)

    def ready(self, timeout: float) -> tuple[bool, bool]:
        self._check()
        return self._inner.ready(timeout)

    def recv(self, size: int) -> bytes:
        self._check()
        return self._inner.recv(size)

    def recv_stderr(self, size: int) -> bytes:
        self._check()
        return self._inner.recv_stderr(size)

    def fileno(self) -> int:
        return self._inner.fileno()

    def settimeout(self, seconds: float | None) -> None:
        self._inner.settimeout(seconds)

    def shutdown_write(self) -> None:
        self._inner.shutdown_write()

    def wait(self, timeout: float) -> int:
        return self._inner.wait(timeout)

    def close(self) -> None:
        if not self._broken:
            self._inner.close()

    def _check(self) -> None:
        if self._broken:
            raise ConnectionResetError("broken on purpose")


class BreakingMachine(LocalMachine):
    """This machine, over connections that break. With `swallows`, the last program never arrives."""

    def __init__(self) -> None:
        super().__init__()
        self.breaks = 0
        self.swallows = False
        self.swallowed: list[tuple[Process, bytes]] = []

    def popen(self, command: str) -> Process:
        return BreakingProcess(super().popen(command), self)


@pytest.fixture
def machine() -> BreakingMachine:
    return BreakingMachine()


@pytest.fixture
def detached(machine: BreakingMachine, tmp_path: Path) -> Iterator[Detached]:
    made = Detached(machine, RunDir("r", str(tmp_path / "state")), limit=4, lost_after=5.0)
    made.open()
    yield made
    made.close()
    for process, _ in machine.swallowed:
        process.close()


def command(tmp_path: Path) -> Command:
    return Command("a-1", "a", 1, f"echo began >>{tmp_path}/began; seq 1 1000; exit 3")


def began(tmp_path: Path) -> int:
    file = tmp_path / "began"
    return len(file.read_text().splitlines()) if file.exists() else 0


EXPECTED = (b"".join(b"%d\n" % i for i in range(1, 1001)), b"", Exit(3))


def test_a_command_whose_start_was_not_confirmed_runs_once_and_keeps_all_its_output(
    machine: BreakingMachine, detached: Detached, tmp_path: Path
) -> None:
    machine.breaks = 1
    running = detached.start(command(tmp_path), str(tmp_path), ISOLATION)
    assert read_all(running) == EXPECTED
    assert began(tmp_path) == 1
    running.discard()


def test_a_command_that_never_arrived_is_sent_again_and_a_late_arrival_does_nothing(
    machine: BreakingMachine, detached: Detached, tmp_path: Path
) -> None:
    machine.breaks, machine.swallows = 2, True
    running = detached.start(command(tmp_path), str(tmp_path), ISOLATION)
    assert len(machine.swallowed) == 2
    for process, program in machine.swallowed:
        process.sendall(program)
    assert read_all(running) == EXPECTED
    time.sleep(0.3)
    assert began(tmp_path) == 1
    running.discard()


def test_a_lane_that_refused_a_command_runs_other_commands(detached: Detached, tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        detached.start(Command("b-1", "b", 1, "true", files={"no/such/folder": b""}), str(tmp_path), ISOLATION)
    running = detached.start(command(tmp_path), str(tmp_path), ISOLATION)
    assert read_all(running) == EXPECTED
    running.discard()


def test_the_control_lane_reopens_after_its_connection_broke(detached: Detached) -> None:
    control = detached._lanes.control
    shell = control._shell
    assert shell
    assert isinstance(shell._process, BreakingProcess)
    shell._process._broken = True
    assert control.ask(lambda mark: programs.is_alive(mark, "none-1")) == "no"
    assert control._shell is not shell
    shell._process._inner.close()


def test_a_lane_with_much_output_is_not_reused(detached: Detached, tmp_path: Path) -> None:
    state = tmp_path / "state"
    running = detached.start(Command("b-1", "b", 1, "head -c 70000000 /dev/zero"), str(tmp_path), ISOLATION)
    read_all(running)
    (first,) = state.glob("lane-*")
    running.discard()
    running = detached.start(command(tmp_path), str(tmp_path), ISOLATION)
    assert read_all(running) == EXPECTED
    until(lambda: not first.exists())
    running.discard()
