"""Plain groups: conditions, time limits, retries, and the group's own `always:`."""

from __future__ import annotations

import threading
import time

import pytest

from pccpipe.errors import Unavailable
from pccpipe.executor.replay import Replay
from pccpipe.outcome import IsolationMode, Outcome, Reason
from pccpipe.record.events import CommandStarted, GroupAlwaysStarted, Happening, StepEnded
from pccpipe.record.run_events import RunEnded, RunStopped
from pccpipe.target import Command, Exit
from pccpipe.targets.dummy import Play
from tests.executor.rehearsal import Notes, Script, Stage
from tests.executor.test_replay import KilledError, MortalNotes, began, failing
from tests.record.script import events as stamped

GROUP = """
    steps:
      - id: tests
        steps: [{id: a, run: x}, {id: b, run: x}, {id: c, run: x}]
        always: [{id: stop, run: x}, {id: report, run: "x ${{ steps.tests.outcome }} ${{ steps.b.outcome }}"}]
      - {id: after, run: x}
"""


def lasting(step: str) -> Script:
    return lambda command: Play(lasts=60 if command.step == step else 0)


def cancel_at(stage: Stage, step: str, by: str = "INT") -> None:
    def on_event(happening: Happening) -> None:
        if isinstance(happening, CommandStarted) and happening.step == step:
            threading.Timer(0.05, stage.cancel.request, [by]).start()

    stage.on_event = on_event


def test_a_group_runs_its_steps_in_order_and_its_always_last(stage: Stage) -> None:
    played = stage.play(GROUP)
    assert [step for step, _ in played.ends] == [
        "tests.a",
        "tests.b",
        "tests.c",
        "tests.stop",
        "tests.report",
        "tests",
        "after",
    ]
    assert played.state.outcome is Outcome.SUCCEEDED


def test_a_failure_skips_the_rest_of_the_group_but_not_its_always(stage: Stage) -> None:
    stage.script = failing("tests.b-1", "tests.stop-1")
    played = stage.play(GROUP)
    assert played.ends == [
        ("tests.a", "succeeded"),
        ("tests.b", "failed"),
        ("tests.stop", "failed"),
        ("tests.report", "succeeded"),
        ("tests", "failed"),
    ]
    assert isinstance(played.ending, RunEnded)
    assert played.ending.message == "b failed: exit code 1"
    assert played.end_of("tests").result is None
    scripts = [command.script for target in played.targets.values() for command in target.commands]
    assert "x failed failed" in scripts


def test_an_always_step_that_fails_fails_a_group_that_had_succeeded(stage: Stage) -> None:
    stage.script = failing("tests.stop-1")
    played = stage.play(GROUP)
    assert played.end_of("tests").outcome is Outcome.FAILED
    assert played.end_of("tests").message == "stop (always): exit code 1"
    assert ("tests.report", "succeeded") in played.ends


def test_a_cancel_ends_the_group_and_its_always_still_runs(stage: Stage) -> None:
    stage.script = lasting("b")
    cancel_at(stage, "tests.b")
    played = stage.play(GROUP)
    assert played.ends == [
        ("tests.a", "succeeded"),
        ("tests.b", "cancelled"),
        ("tests.stop", "succeeded"),
        ("tests.report", "succeeded"),
        ("tests", "cancelled"),
    ]
    assert played.state.outcome is Outcome.CANCELLED


def test_a_second_cancel_ends_the_always_step_that_runs_and_the_next_still_begins(stage: Stage) -> None:
    stage.script = lambda command: Play(lasts=60 if command.step in {"b", "stop"} else 0)

    def on_event(happening: Happening) -> None:
        if isinstance(happening, CommandStarted) and happening.step == "tests.b":
            threading.Timer(0.05, stage.cancel.request, ["INT"]).start()
        if isinstance(happening, CommandStarted) and happening.step == "tests.stop":
            threading.Timer(0.05, stage.cancel.hurry).start()

    stage.on_event = on_event
    played = stage.play(GROUP)
    assert ("tests.stop", "cancelled") in played.ends
    assert ("tests.report", "succeeded") in played.ends
    assert played.state.outcome is Outcome.CANCELLED


def test_a_groups_time_limit_does_not_end_its_always(stage: Stage) -> None:
    stage.script = lasting("b")
    played = stage.play(GROUP.replace("- id: tests", "- id: tests\n        timeout: 300ms"))
    assert played.ends == [
        ("tests.a", "succeeded"),
        ("tests.b", "timed_out"),
        ("tests.stop", "succeeded"),
        ("tests.report", "succeeded"),
        ("tests", "timed_out"),
    ]


def test_an_always_step_of_a_group_has_a_time_limit_of_its_own(stage: Stage) -> None:
    stage.script = lasting("stop")
    began_at = time.monotonic()
    played = stage.play(
        "steps: [{id: g, steps: [{id: a, run: x}], always: [{id: stop, run: x, timeout: 200ms}, {id: b, run: x}]}]"
    )
    assert time.monotonic() - began_at < 30
    assert played.ends[1:] == [("g.stop", "timed_out"), ("g.b", "succeeded"), ("g", "timed_out")]


def test_a_skipped_group_runs_nothing_of_it(stage: Stage) -> None:
    played = stage.play(
        "steps: [{id: g, if: 'false', steps: [{id: a, run: x}], always: [{id: s, run: x}]}, {id: b, run: x}]"
    )
    assert played.ends == [("g", "skipped"), ("b", "succeeded")]


def test_a_retried_group_runs_all_its_steps_again_and_its_always_once(stage: Stage) -> None:
    stage.script = failing("tests.b-1")
    played = stage.play(GROUP.replace("- id: tests", "- id: tests\n        retry: {attempts: 3, backoff: 0s}"))
    assert [step for step, _ in played.ends] == [
        "tests.a",
        "tests.b",
        "tests.a",
        "tests.b",
        "tests.c",
        "tests.stop",
        "tests.report",
        "tests",
        "after",
    ]
    assert played.state.outcome is Outcome.SUCCEEDED
    logs = [event.stdout for event in played.notes.of(CommandStarted)]
    assert len(set(logs)) == len(logs), "each attempt has a log of its own"


def test_a_group_says_how_it_fails_and_may_be_ignored(stage: Stage) -> None:
    stage.script = failing("g.a-1")
    played = stage.play("steps: [{id: g, fails_as: tests_red, steps: [{id: a, run: x}]}]")
    assert isinstance(played.ending, RunEnded)
    assert played.ending.status == "tests_red"
    played = stage.play("steps: [{id: g, continue_on_error: true, steps: [{id: a, run: x}]}, {id: b, run: x}]")
    assert played.ends[1:] == [("g", "failed"), ("b", "succeeded")]


def test_a_value_that_cannot_be_evaluated_in_a_group_does_not_skip_its_always(stage: Stage) -> None:
    played = stage.play(
        "inputs: {n: {type: integer, default: 0}}\n"
        "steps: [{id: g, repeat: {max: '${{ 1 // inputs.n }}'}, steps: [{id: a, run: x}], always: [{id: s, run: x}]}]"
    )
    assert played.ends == [("g.s", "succeeded"), ("g", "failed")]


def test_a_step_without_a_turn_before_the_kill_gets_none_once_its_group_has_ended(stage: Stage) -> None:
    """A group that a time limit ended, and that the run ignores: its other steps must not begin after a resume."""
    text = """
        steps:
          - id: g
            timeout: 300ms
            continue_on_error: true
            steps: [{id: a, run: x, continue_on_error: true}, {id: never, run: x}]
            always: [{id: s, run: x}]
          - {id: b, run: x}
    """
    stage.script = lasting("a")
    whole = stage.play(text)
    assert [step for step, _ in whole.ends] == ["g.a", "g.s", "g", "b"]
    over = next(n for n, what in enumerate(whole.notes.happenings, 1) if isinstance(what, GroupAlwaysStarted))
    for life in range(over, len(whole.notes.happenings)):
        notes, targets = MortalNotes(life), stage.targets()
        with pytest.raises(KilledError):
            stage.play(text, notes, targets)
        rest = Notes()
        rest.happenings = list(notes.happenings)
        resumed = stage.play(text, rest, targets, Replay(stamped([began(), *notes.happenings], time.time(), 0.001)))
        assert resumed.state.outcome is Outcome.SUCCEEDED
        assert [step for step, _ in resumed.ends] == ["g.a", "g.s", "g", "b"], f"killed after {life} events"


def test_a_run_that_stops_for_a_place_leaves_the_groups_always_to_the_resume(stage: Stage) -> None:
    text = """
        steps:
          - id: g
            steps: [{id: a, run: x, on: vm}, {id: b, run: x, on: vm}]
            always: [{id: s, run: x}]
    """
    gone = Unavailable(Reason.PROCESSES_LEFT, "a process of an earlier step")
    away = [True]

    def script(command: Command) -> Play:
        return Play(unavailable=gone) if command.step == "b" and away[0] else Play()

    stage.script, stage.had_vm = script, True
    first = stage.play(text)
    assert isinstance(first.ending, RunStopped)
    assert [step for step, _ in first.ends] == ["g.a", "g.b", "g"]
    away[0] = False
    happenings = [began(), *first.notes.happenings, first.ending]
    resumed = stage.play(text, Notes(), first.targets, Replay(stamped(happenings, time.time(), 0.001)))
    assert [(end.step, end.outcome.value) for end in resumed.notes.of(StepEnded)] == [
        ("g.b", "succeeded"),
        ("g.s", "succeeded"),
        ("g", "succeeded"),
    ]


def test_a_group_under_always_and_in_a_round_and_side_by_side(stage: Stage) -> None:
    stage.mode = IsolationMode.LOCAL
    stage.script = lambda command: Play(exit=Exit(1)) if command.id == "p.g2.b-1" else Play()
    played = stage.play(
        """
        steps:
          - id: r
            repeat: {max: 2}
            steps: [{id: g1, steps: [{id: a, run: "x ${{ iteration }}"}]}]
          - id: p
            parallel: [{id: g2, steps: [{id: b, run: x}], always: [{id: s, run: x}]}, {id: q, run: x}]
        always:
          - {id: g3, steps: [{id: c, run: x}], always: [{id: d, run: x}]}
        """
    )
    paths = [step for step, _ in played.ends]
    assert paths[:5] == ["r[1].g1.a", "r[1].g1", "r[2].g1.a", "r[2].g1", "r"]
    assert {"p.g2.b", "p.g2.s", "p.g2", "p.q", "p"} < set(paths)
    assert paths[-3:] == ["g3.c", "g3.d", "g3"]
