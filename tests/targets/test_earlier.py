"""A resumed run of an earlier version, whose local commands ran in shell lanes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pccpipe.detached.commands import Detached
from pccpipe.detached.programs import RunDir
from pccpipe.errors import Lost
from pccpipe.machine.local import LocalMachine
from pccpipe.target import Command, Exit, Token
from pccpipe.targets.local import LocalTarget
from tests.detached.test_pool import HAD
from tests.targets.stand import Stand, local_shell, read_all, read_until

SCRIPT = "echo one >>begun; echo one; sleep 1; echo two; exit 6"


def test_a_resumed_run_attaches_to_a_command_in_a_lane_and_removes_all_at_its_end(tmp_path: Path) -> None:
    state = tmp_path / "state"
    earlier = Detached(LocalMachine(), RunDir("run-1", str(state)), limit=4)
    earlier.open()
    running = earlier.start(Command("a-1", "a", 1, SCRIPT), str(tmp_path), HAD)
    read_until(running, b"one\n")
    earlier.leave()
    target = LocalTarget("run-1", state, lambda: tmp_path, kill_after=1.0)
    target.take_over()
    stand = Stand("run-1", target, lambda: target, local_shell, str(state), str(tmp_path))
    attached = target.attach(running.token)
    # The next step runs under the supervisor.
    assert stand.run("echo next") == (b"next\n", b"", Exit(0))
    assert read_all(attached) == (b"one\ntwo\n", b"", Exit(6))
    attached.discard()
    target.close()
    assert not state.exists()
    assert stand.processes() == []
    assert (tmp_path / "begun").read_text() == "one\n"


def test_a_command_in_a_lane_that_was_not_recorded_is_found(tmp_path: Path) -> None:
    state = tmp_path / "state"
    earlier = Detached(LocalMachine(), RunDir("run-1", str(state)), limit=4)
    earlier.open()
    command = Command("a-1", "a", 1, SCRIPT)
    read_until(earlier.start(command, str(tmp_path), HAD), b"one\n")
    earlier.leave()
    target = LocalTarget("run-1", state, lambda: tmp_path, kill_after=1.0)
    target.open()
    found = target.find(command)
    assert found is not None
    assert read_all(found) == (b"one\ntwo\n", b"", Exit(6))
    found.discard()
    assert target.find(Command("b-1", "b", 1, "true")) is None
    target.close()


def test_a_command_in_a_removed_lane_is_lost(tmp_path: Path) -> None:
    state = tmp_path / "state"
    target = LocalTarget("run-1", state, lambda: tmp_path)
    target.open()
    token: Token = {"id": "a-1", "mark": "0" * 32, "lane": f"{state}/lane-0123456789abcdef", "stdout": 0, "stderr": 0}
    with pytest.raises(Lost):
        target.attach(token)
    target.close()
