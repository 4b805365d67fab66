"""Shows an agent at work: its actions are lines, and no JSON of its program is shown."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from pccpipe.outcome import ActionKind, Outcome, Stream
from pccpipe.record.agent_events import Activity
from pccpipe.record.agent_report import AgentReport, EditedFile
from pccpipe.record.events import CommandEnded, Event, Happening, LiveEvent, Output, StepEnded
from pccpipe.record.run_events import RunEnded
from pccpipe.views.activity import activity_text, count_text, report_text
from pccpipe.views.board import board
from pccpipe.views.plain import PlainView
from pccpipe.views.watch import Watch
from tests.views.feeder import agent_run

BEGAN = 1_700_000_000.0


def events(happenings: list[Happening], every: float = 1.0) -> list[Event]:
    return [
        Event(0 if isinstance(what, LiveEvent) else number, BEGAN + number * every, what)
        for number, what in enumerate(happenings, 1)
    ]


def plain(happenings: list[Happening]) -> list[str]:
    stream = io.StringIO()
    view = PlainView(stream, Path(".system/runs/r1"))
    for event in events(happenings):
        view(event)
    return [line[9:] for line in stream.getvalue().splitlines()]


def live(happenings: list[Happening], later: float = 0.0, width: int = 79, height: int = 23) -> list[str]:
    watch = Watch()
    for event in events(happenings):
        watch.feed(event)
    now = event.time + later
    lines = board(watch.state, lambda step, most: watch.live_tail(step, most, now), now, width, height)
    return ["".join(text for text, _ in line) for line in lines]


def test_a_log_has_the_actions_and_no_json() -> None:
    lines = plain(list(agent_run()))
    assert not [line for line in lines if '"type"' in line]
    assert "build runs codex: container pcc-runner:latest" in "\n".join(lines)
    begin = lines.index(f"build | $ npm test -- unit-0 --verbose {'x' * 60}")
    assert lines[begin + 1] == "build |   exit 0 in 12s"
    assert lines[begin + 3] == "build |   exit 1 in 12s"
    assert "build | edits src/parser.py +120 -14" in lines
    assert "build | gives its result" in lines


def test_the_end_of_a_command_names_it_if_other_lines_came_between() -> None:
    run = list(agent_run())[:3]
    actions = [
        Activity("build", ActionKind.COMMAND, "make", "1"),
        Activity("build", ActionKind.MESSAGE, "I wait"),
        Activity("build", ActionKind.COMMAND_END, "make", "1", 2, True, 3.0),
    ]
    assert plain([*run, *actions])[-3:] == ["build | $ make", "build | says: I wait", "build | exit 2 in 3.0s: $ make"]


def test_a_command_that_is_reported_at_its_end_is_one_line_and_counts_once() -> None:
    run = [*list(agent_run())[:3], Activity("build", ActionKind.COMMAND_END, "make", "", 2, True)]
    assert plain(run)[-1] == "build | exit 2: $ make"
    assert live(run)[2] == "  │ 1 command (1 failed)"


def test_stderr_of_an_agent_and_stdout_of_other_steps_are_shown() -> None:
    run = list(agent_run())[:3]
    lines = plain(
        [*run, Output("build", Stream.STDERR, "a warning\n"), Output("other", Stream.STDOUT, '{"type": 1}\n')]
    )
    assert lines[-2:] == ["build | a warning", 'other | {"type": 1}']


def test_a_terminal_of_80_columns_shows_work_budget_time_and_the_last_actions() -> None:
    lines = live(list(agent_run()), later=100.0)
    assert lines[1].startswith("▶ build")
    assert "codex, container" in lines[1]
    assert lines[2] == "  │ 13 commands (6 failed), 1 file +120 -14 · quiet for 1m40s"
    assert lines[3] == "  │ 1.2M of 2.0M tokens · 2m23s of 1h"
    assert lines[-2] == "  │ 1m40s $ npm run build"
    assert all(len(line) <= 79 for line in lines)


@pytest.mark.parametrize("height", [3, 4, 5, 8])
def test_a_small_terminal_still_fits(height: int) -> None:
    assert len(live(list(agent_run()), height=height)) <= height


def test_a_failed_agent_step_ends_with_its_last_actions() -> None:
    run = [
        *list(agent_run())[:3],
        Activity("build", ActionKind.COMMAND, "npm test", "1"),
        Activity("build", ActionKind.COMMAND_END, "npm test", "1", 1, True, 3.0),
        Output("build", Stream.STDOUT, '{"type": "error"}\n'),
        Activity("build", ActionKind.ERROR, "the key is wrong", failed=True),
        CommandEnded("build", 1, Outcome.FAILED, 1),
        StepEnded("build", Outcome.FAILED, 4.0, 1, message="exit code 1"),
        RunEnded(Outcome.FAILED, "failed", False, 4.0, "build: exit code 1"),
    ]
    text = "\n".join(plain(run))
    assert "| error: the key is wrong" in text
    assert '{"type"' not in text


@pytest.mark.parametrize("kind", list(ActionKind))
def test_no_action_gets_more_than_a_harmless_line(kind: ActionKind) -> None:
    hostile = "a\x1b[2J\r\nb\x1b]0;title\x07 \u202e\ud800 c\u2028" + "x" * 100_000
    text = activity_text(Activity("s", kind, hostile, "\x1b", exit_code=-5, seconds=1e9, added=10**12))
    assert len(text) < 800
    assert not set(text) & set("\x1b\r\n\x07\u202e\u2028\ud800")


def test_numbers_read_short() -> None:
    assert [count_text(count) for count in (0, 999, 1000, 12_345, 999_499, 1_200_000, 20_000_000, 7 * 10**9)] == [
        "0",
        "999",
        "1.0k",
        "12.3k",
        "999k",
        "1.2M",
        "20.0M",
        "7.0G",
    ]


def test_a_report_is_one_line() -> None:
    files = (EditedFile("a", 3, 1), EditedFile("b", 2, 0))
    assert report_text(AgentReport(4, 1, files, messages=2, retries=1)) == (
        "4 commands (1 failed), 2 files +5 -1, 2 messages, 1 call of the model made again"
    )
    assert report_text(AgentReport()) == "nothing"
