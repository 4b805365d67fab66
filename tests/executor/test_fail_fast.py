"""`fail_fast:` the first failure of a `parallel:` group or a matrix ends the others."""

from __future__ import annotations

import threading
import time

import pytest

from pccpipe.executor.replay import Replay
from pccpipe.outcome import Outcome
from pccpipe.record.events import CommandStarted, Happening, StepEnded
from pccpipe.target import Command, Exit
from pccpipe.targets.dummy import Play
from tests.executor.rehearsal import Notes, Played, Stage
from tests.executor.test_replay import KilledError, MortalNotes, began, decisive, what_began
from tests.record.script import events as stamped

GROUP = """
    steps:
      - id: g
        fail_fast: true
        max_parallel: 2
        parallel:
          - id: slow
            steps: [{id: work, run: x}, {id: more, run: x}]
            always: [{id: tidy, run: x}]
          - {id: bad, run: x}
          - {id: later, run: x}
      - {id: next, run: x}
    always: [{id: last, run: x}]
"""


UNSURE = {"g.slow", "g.slow.work"}


def fails_beside_a_long_step(stage: Stage, slow: str, bad: str, seconds: float = 60) -> None:
    """Let `bad` fail once `slow` runs."""
    runs = threading.Event()

    def on_event(happening: Happening) -> None:
        if isinstance(happening, CommandStarted) and happening.step.endswith(slow):
            runs.set()

    def script(command: Command) -> Play:
        if command.step == bad:
            runs.wait(0.2 if seconds < 60 else 10)
            return Play(exit=Exit(1))
        return Play(lasts=seconds if command.step == slow else 0)

    stage.on_event = on_event
    stage.script = script


def ends_of(played: Played) -> dict[str, str]:
    return dict(played.ends)


def test_the_first_failure_ends_the_others_and_decides(stage: Stage) -> None:
    fails_beside_a_long_step(stage, "work", "bad")
    started = time.monotonic()
    played = stage.play(GROUP)
    assert time.monotonic() - started < 15
    assert ends_of(played) == {
        "g.slow.work": "cancelled",
        "g.slow.tidy": "succeeded",
        "g.slow": "cancelled",
        "g.bad": "failed",
        "g.later": "skipped",
        "g": "failed",
        "last": "succeeded",
    }
    assert played.end_of("g.slow.work").message == "cancelled: bad failed (fail_fast)"
    assert played.end_of("g.later").message == "bad failed (fail_fast)"
    assert played.end_of("g").message.startswith("bad: ")
    assert played.state.outcome is Outcome.FAILED
    assert not stage.cancel.requested


def test_a_matrix_ends_its_other_legs(stage: Stage) -> None:
    fails_beside_a_long_step(stage, "m[n=1]", "m[n=2]")
    played = stage.play("""
        steps:
          - {id: m, matrix: {n: [1, 2, 3]}, max_parallel: 2, fail_fast: true, run: x, continue_on_error: false}
    """)
    assert ends_of(played) == {"m[n=1]": "cancelled", "m[n=2]": "failed", "m[n=3]": "skipped", "m": "failed"}
    assert played.end_of("m").message.startswith("m[n=2]: ")


def test_a_failure_that_may_happen_ends_nothing(stage: Stage) -> None:
    stage.script = lambda command: Play(exit=Exit(1 if command.step == "bad" else 0))
    played = stage.play("""
        steps:
          - id: g
            fail_fast: true
            max_parallel: 1
            parallel: [{id: bad, run: x, continue_on_error: true}, {id: good, run: x}]
    """)
    assert ends_of(played) == {"g.bad": "failed", "g.good": "succeeded", "g": "succeeded"}


def test_another_attempt_of_the_group_has_all_its_steps(stage: Stage) -> None:
    stage.script = lambda command: Play(exit=Exit(1 if command.id == "g.bad-1" else 0))
    played = stage.play("""
        steps:
          - id: g
            fail_fast: true
            max_parallel: 1
            retry: {attempts: 2, backoff: 0s}
            parallel: [{id: bad, run: x}, {id: later, run: x}]
    """)
    assert [end for end in played.ends if end[0] == "g.later"] == [("g.later", "skipped"), ("g.later", "succeeded")]
    assert played.state.outcome is Outcome.SUCCEEDED


def test_a_cancel_of_the_run_reaches_all_of_it(stage: Stage) -> None:
    stage.script = lambda command: Play(lasts=60 if command.step == "work" else 0)

    def on_event(happening: Happening) -> None:
        if isinstance(happening, CommandStarted) and happening.step == "g.slow.work":
            threading.Timer(0.05, stage.cancel.request, ["INT"]).start()

    stage.on_event = on_event
    played = stage.play(GROUP)
    assert played.end_of("g.slow.work").message == "cancelled"
    assert played.state.outcome is Outcome.CANCELLED


@pytest.mark.parametrize("most", [1, 2])
def test_a_run_killed_at_any_event_ends_in_the_same_way(stage: Stage, most: int) -> None:
    text = GROUP.replace("max_parallel: 2", f"max_parallel: {most}")
    stage.script = lambda command: Play(exit=Exit(1 if command.step == "bad" else 0))

    def set_scene() -> None:
        if most == 2:
            fails_beside_a_long_step(stage, "work", "bad", 1)

    set_scene()
    whole = stage.play(text)
    for life in range(len(whole.notes.happenings)):
        set_scene()
        notes, targets = MortalNotes(life), stage.targets()
        with pytest.raises(KilledError):
            stage.play(text, notes, targets)
        set_scene()
        rest = Notes()
        rest.happenings = list(notes.happenings)
        resumed = stage.play(text, rest, targets, Replay(stamped([began(), *notes.happenings], time.time(), 0.001)))
        # A kill waits for the other threads here, so the long step may come to its end.
        ends = {(end.step, end.outcome.value) for end in rest.happenings if isinstance(end, StepEnded)}
        assert ends >= {end for end in whole.ends if most == 1 or end[0] not in UNSURE}, f"killed after {life} events"
        if most == 1:
            assert decisive(rest) == decisive(whole.notes), f"killed after {life} events"
            assert what_began(resumed) == what_began(whole), f"killed after {life} events"
