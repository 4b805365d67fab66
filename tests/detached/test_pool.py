"""Runs the lanes of VMs on this machine, in each shell that a VM may have."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pccpipe.detached.commands import Detached
from pccpipe.detached.programs import RunDir
from pccpipe.errors import Unavailable
from pccpipe.machine.local import LocalMachine
from pccpipe.outcome import Place as Where
from pccpipe.outcome import Reason
from pccpipe.target import Command, ContainerSettings, Isolation, Running, Token
from tests.targets.shells import check_shell
from tests.targets.stand import Stand, local_shell, until

HAD = Isolation(Where.VM, "localhost", "0:0")


class LaneTarget:
    """A `Target` with the lanes of a VM on this machine."""

    def __init__(self, run_id: str, state: Path, workspace: Path) -> None:
        self._workspace = str(workspace)
        self._detached = Detached(LocalMachine(), RunDir(run_id, str(state)), limit=32, kill_after=1.0)

    def open(self) -> None:
        self._detached.open()

    def probe(self, container: ContainerSettings | None) -> None:
        self.open()

    def take_over(self) -> None:
        self._detached.take_over()

    def start(self, command: Command) -> Running:
        return self._detached.start(command, self._workspace, HAD)

    def find(self, command: Command) -> Running | None:
        return self._detached.find(command.id, HAD)

    def attach(self, token: Token) -> Running:
        return self._detached.attach(token, HAD)

    def leave(self) -> None:
        self._detached.leave()

    def close(self) -> tuple[str, ...]:
        return self._detached.close()


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    def make() -> LaneTarget:
        return LaneTarget("run-1", tmp_path / "state", tmp_path)

    target = make()
    target.open()
    yield Stand("run-1", target, make, local_shell, str(tmp_path / "state"), str(tmp_path))
    target.close()


def test_lanes_work_in_each_shell(shell: str, stand: Stand) -> None:
    check_shell(shell, stand)


def test_many_commands_leave_neither_processes_nor_zombies(shell: str, stand: Stand) -> None:
    for _ in range(5):
        stand.run("true")
    before = _children_of_lanes(stand)
    for _ in range(120):
        stand.run("true")
    # A lane reaps ended processes at each command. On a busy machine some end late.
    until(lambda: bool(stand.run("true")) and _children_of_lanes(stand) <= before + 2)
    assert len(list(Path(stand.state, "commands").iterdir())) < 5 * 40


def test_a_child_that_ends_while_a_command_begins_loses_no_output(shell: str, stand: Stand) -> None:
    stand.run("true")
    (cats,) = Path(stand.state).glob("lane-*/cats")
    readers = [int(pid) for pid in cats.read_text().split()]
    lane = int(Path(f"/proc/{readers[0]}/stat").read_text().rpartition(")")[2].split()[1])
    for pid in readers:
        os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(stand.run, "echo out; echo err >&2")
        for pid in readers:
            time.sleep(0.3)
            os.kill(lane, signal.SIGCHLD)  # it waits for this one to read its FIFO
            time.sleep(0.1)
            os.kill(pid, signal.SIGCONT)
        out, err, exit_ = running.result()
    assert (out, err, exit_.code) == (b"out\n", b"err\n", 0)


def test_the_error_names_missing_coreutils(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name in ("sh", "mkdir", "rm", "tail", "grep", "mkfifo"):
        found = shutil.which(name)
        assert found
        (bin_ / name).symlink_to(found)
    monkeypatch.setenv("PATH", str(bin_))
    target = LaneTarget("run-3", tmp_path / "state", tmp_path)
    with pytest.raises(Unavailable) as caught:
        target.open()
    assert caught.value.reason is Reason.SHELL_MISSING
    assert "timeout (coreutils)" in caught.value.words
    assert "tail" not in caught.value.words
    target.close()


def _children_of_lanes(stand: Stand) -> int:
    """Count the processes, zombies too, whose parent works in a lane's folder."""
    count = 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = status.read_text().rpartition(")")[2].split()[1]
            folder = Path(f"/proc/{parent}/cwd").readlink()
        except OSError:
            continue
        count += str(folder).startswith(stand.state)
    return count
