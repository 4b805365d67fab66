"""`needs:` between the steps of a `parallel:` group."""

from __future__ import annotations

import threading
import time

import pytest

from pccpipe.errors import Unavailable
from pccpipe.executor.replay import Replay
from pccpipe.outcome import Outcome, Reason
from pccpipe.record.events import CommandStarted, StepEnded
from pccpipe.record.run_events import RunStopped
from pccpipe.target import Command, Exit
from pccpipe.targets.dummy import Play
from tests.executor.rehearsal import Notes, Stage
from tests.executor.test_replay import KilledError, MortalNotes, began, decisive, failing, what_began
from tests.record.script import events as stamped

STAGES = """
    steps:
      - id: g
        max_parallel: 2
        continue_on_error: true
        parallel:
          - {id: d, needs: [b, c], run: "x ${{ steps.a.outcome }}"}
          - {id: a, run: x}
          - {id: b, needs: [a], run: x}
          - {id: c, needs: [a], run: x}
          - {id: handler, needs: [b], if: steps.b.failed, run: x}
          - {id: far_handler, needs: [d], if: steps.b.failed, run: x}
          - {id: after_handler, needs: [handler], run: x}
"""


def test_a_step_starts_when_those_it_needs_have_ended(stage: Stage) -> None:
    played = stage.play(STAGES)
    order = [path.partition("@")[0] for path in played.order]
    assert order[0] == "g.a"
    assert order.index("g.d") > max(order.index("g.b"), order.index("g.c"))
    assert played.end_of("g.handler").outcome is Outcome.SKIPPED
    assert played.end_of("g").outcome is Outcome.SUCCEEDED


def test_a_need_that_failed_skips_all_that_depend_on_it_but_handlers(stage: Stage) -> None:
    stage.script = failing("g.b-1")
    played = stage.play(STAGES)
    assert dict(played.ends) == {
        "g.a": "succeeded",
        "g.b": "failed",
        "g.c": "succeeded",
        "g.d": "skipped",
        "g.handler": "succeeded",
        "g.far_handler": "succeeded",
        "g.after_handler": "succeeded",
        "g": "failed",
    }
    assert played.end_of("g.d").message == "b did not succeed, and this step needs it"


def test_a_failed_need_that_may_fail_passes(stage: Stage) -> None:
    stage.script = failing("g.a-1")
    played = stage.play(
        "steps: [{id: g, parallel: [{id: a, run: x, continue_on_error: true}, {id: b, needs: [a], run: x}]}]"
    )
    assert dict(played.ends) == {"g.a": "failed", "g.b": "succeeded", "g": "succeeded"}


def test_a_step_that_waits_takes_no_place(stage: Stage) -> None:
    now, most, lock = [0], [0], threading.Lock()

    def script(command: Command) -> Play:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.05)
        with lock:
            now[0] -= 1
        return Play()

    stage.script = script
    steps = ", ".join(f"{{id: w{n}, needs: [last], run: x}}" for n in range(6))
    played = stage.play(f"steps: [{{id: g, max_parallel: 2, parallel: [{steps}, {{id: last, run: x}}]}}]")
    assert played.order[0] == "g.last@local"
    assert most[0] <= 2
    assert played.state.outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize("failed", ["none-1", "g.a-1", "g.b-1"])
def test_a_run_killed_at_any_event_skips_and_runs_the_same_steps(stage: Stage, failed: str) -> None:
    text = STAGES.replace("max_parallel: 2", "max_parallel: 1")
    stage.script = lambda command: Play(exit=Exit(1)) if command.id == failed else Play()
    whole = stage.play(text)
    for life in range(len(whole.notes.happenings)):
        notes, targets = MortalNotes(life), stage.targets()
        with pytest.raises(KilledError):
            stage.play(text, notes, targets)
        rest = Notes()
        rest.happenings = list(notes.happenings)
        resumed = stage.play(text, rest, targets, Replay(stamped([began(), *notes.happenings], time.time(), 0.001)))
        assert decisive(rest) == decisive(whole.notes), f"killed after {life} events"
        assert what_began(resumed) == what_began(whole), f"killed after {life} events"


def test_a_long_chain_of_needs_runs_in_order(stage: Stage) -> None:
    chain = ", ".join(f"{{id: s{n}, needs: [s{n + 1}], run: x}}" for n in range(400))
    played = stage.play(f"steps: [{{id: g, parallel: [{chain}, {{id: s400, run: x}}]}}]")
    assert [event.step for event in played.notes.of(CommandStarted)] == [f"g.s{n}" for n in range(400, -1, -1)]


def test_a_need_that_stops_the_run_leaves_the_steps_that_need_it_to_the_resume(stage: Stage) -> None:
    text = """
        steps:
          - id: g
            parallel:
              - {id: a, run: x, on: vm}
              - {id: b, run: x, on: vm, needs: [a], continue_on_error: true}
              - {id: c, run: x, on: vm, needs: [b]}
              - {id: handler, run: x, on: vm, needs: [a], if: steps.a.failed}
    """
    away = [Unavailable(Reason.PROCESSES_LEFT, "no place for it")]
    stage.script = lambda command: Play(unavailable=away[0] if away and command.step == "a" else None)
    stage.had_vm = True
    first = stage.play(text)
    assert isinstance(first.ending, RunStopped)
    assert [step for step, _ in first.ends] == ["g.a", "g"]
    away.clear()
    happenings = [began(), *first.notes.happenings, first.ending]
    resumed = stage.play(text, Notes(), first.targets, Replay(stamped(happenings, time.time(), 0.001)))
    ends = {end.step: end.outcome.value for end in resumed.notes.of(StepEnded)}
    passed = {"g.a": "succeeded", "g.b": "succeeded", "g.c": "succeeded", "g.handler": "skipped", "g": "succeeded"}
    assert ends == passed
