"""Prints the actions of an agent from its record: whole lines, harmless, also while they are written."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from pccpipe import limits
from pccpipe.errors import UsageError
from pccpipe.outcome import ActionKind, Place
from pccpipe.record.activity import ActivityLog, activity_name
from pccpipe.record.agent_events import Activity
from pccpipe.record.events import Event, Happening, StepStarted
from pccpipe.record.state import RunState, state_of
from pccpipe.views.logs import AgentLogPrinter
from tests.record.script import BOXED, LOCAL, command, started

EDIT = Activity("build", ActionKind.EDIT, "a\x1b[2J.py", added=1)


def state() -> RunState:
    happenings: list[Happening] = [
        started("build", "test"),
        StepStarted("build", "run", Place.CONTAINER),
        replace(command("build", BOXED), agent="codex"),
        StepStarted("test", "run", Place.LOCAL),
        command("test", LOCAL),
    ]
    return state_of(Event(number, 1.7e9, what) for number, what in enumerate(happenings, 1))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    return tmp_path / activity_name("logs/build-1.stdout.log")


def test_it_prints_each_action_once_and_nothing_that_a_terminal_obeys(
    tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, printer = ActivityLog(file), AgentLogPrinter(tmp_path, "build")
    printer.show(state(), is_last=False)
    log.write(Event(0, 1.7e9, EDIT))
    printer.show(state(), is_last=False)
    with file.open("ab") as half:
        half.write(b'{"seq": 0')
    printer.show(state(), is_last=True)
    printer.close()
    out, err = capsys.readouterr()
    assert [line[9:] for line in out.splitlines()] == ["edits a\\x1b[2J.py +1 -0"]
    assert err == ""


def test_a_step_without_an_agent_and_a_step_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printer = AgentLogPrinter(tmp_path, "test")
    printer.show(state(), is_last=True)
    printer.close()
    assert capsys.readouterr().err == "pccpipe: no agent of test did anything\n"
    with pytest.raises(UsageError, match="no step 'tset'"):
        AgentLogPrinter(tmp_path, "tset").show(state(), is_last=True)


def test_a_killed_process_leaves_whole_lines_and_the_next_one_continues(file: Path) -> None:
    ActivityLog(file).write(Event(0, 1.0, EDIT))
    with file.open("ab") as half:
        half.write(b'{"seq": 0, "ev')
    again = ActivityLog(file)
    assert again.earlier == (EDIT,)
    again.write(Event(0, 2.0, EDIT))
    assert ActivityLog(file).earlier == (EDIT, EDIT)


def test_the_file_never_exceeds_its_limit(file: Path) -> None:
    log = ActivityLog(file)
    long = Event(0, 1.0, Activity("build", ActionKind.MESSAGE, "x" * 1_000_000))
    assert [log.write(long) for _ in range(12)] == [True] * 8 + [False] * 4
    assert file.stat().st_size <= limits.AGENT_ACTIVITY.most
    assert not ActivityLog(file).write(long)


def test_a_file_that_cannot_be_written_disturbs_nothing(tmp_path: Path) -> None:
    for path in (tmp_path / "missing/activity.jsonl", Path("/dev/full")):
        log = ActivityLog(path)
        assert log.earlier == ()
        assert log.write(Event(0, 1.0, EDIT))
        log.close()
