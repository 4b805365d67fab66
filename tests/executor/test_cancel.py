"""A cancel and a time limit end the steps that run; `always:` steps still run."""

from __future__ import annotations

import threading
import time

from pccpipe.cancel import Cancel
from pccpipe.outcome import Outcome
from pccpipe.record.events import CommandEnded, CommandStarted, Happening
from pccpipe.target import Command
from pccpipe.targets.dummy import Play, says
from tests.executor.rehearsal import Stage

SLOW = """
    steps:
      - {id: slow, run: sleep 60}
      - {id: never, run: "true"}
    always:
      - {id: clean, run: "true"}
"""


def cancel_when(stage: Stage, step: str, *, hurry_after: float | None = None) -> None:
    def on_event(happening: Happening) -> None:
        if isinstance(happening, CommandStarted) and happening.step == step:
            threading.Timer(0.05, stage.cancel.request, ["INT"]).start()
            if hurry_after is not None:
                threading.Timer(hurry_after, stage.cancel.hurry).start()

    stage.on_event = on_event


def test_a_cancel_ends_the_step_keeps_its_output_and_runs_always(stage: Stage) -> None:
    stage.script = lambda command: Play(output=(says("so far\n"),), lasts=60 if command.step == "slow" else 0)
    cancel_when(stage, "slow")
    began = time.monotonic()
    played = stage.play(SLOW)
    assert time.monotonic() - began < 5
    assert played.ends == [("slow", "cancelled"), ("clean", "succeeded")]
    assert played.state.outcome is Outcome.CANCELLED
    log = played.run_dir / played.notes.of(CommandStarted)[0].stdout
    assert log.read_text() == "so far\n"


def test_a_second_cancel_shortens_the_grace(stage: Stage) -> None:
    stage.script = lambda command: Play(lasts=60 if command.step == "slow" else 0, ignores_term=True)
    cancel_when(stage, "slow", hurry_after=0.2)
    began = time.monotonic()
    played = stage.play(SLOW)
    assert time.monotonic() - began < 5
    assert played.notes.of(CommandEnded)[0].signal == "KILL"
    assert ("clean", "succeeded") in played.ends


def test_a_second_cancel_ends_an_always_step_and_not_those_after_it(stage: Stage) -> None:
    stage.script = lambda command: Play(lasts=60 if command.step in {"slow", "first"} else 0)
    cancel_when(stage, "slow", hurry_after=0.5)
    played = stage.play("""
        steps: [{id: slow, run: sleep 60}]
        always: [{id: first, run: sleep 60}, {id: second, run: "true"}]
    """)
    assert played.ends == [("slow", "cancelled"), ("first", "cancelled"), ("second", "succeeded")]


def test_a_step_that_ignores_its_time_limit_is_killed_and_timed_out(stage: Stage) -> None:
    def script(command: Command) -> Play:
        return Play(output=(says("half"),), lasts=60, ignores_term=True)

    stage.script = script
    stage.cancel.hurried = True
    played = stage.play(
        'steps: [{id: a, run: sleep 60, timeout: 100ms, retry: {attempts: 2, backoff: 0s, "on": [failed]}}]'
    )
    end = played.end_of("a")
    assert end.outcome is Outcome.TIMED_OUT
    assert "0.1 s" in end.message
    assert len(played.order) == 1


def test_a_cancel_during_a_backoff_ends_the_wait(stage: Stage) -> None:
    from pccpipe.target import Exit

    stage.script = lambda command: Play(exit=Exit(1))
    cancel_when(stage, "a")
    began = time.monotonic()
    played = stage.play('steps: [{id: a, run: "false", retry: {attempts: 5, backoff: 60s}}]')
    assert time.monotonic() - began < 5
    assert len(played.order) == 1


def test_a_watcher_added_after_the_cancel_is_called_at_once() -> None:
    cancel = Cancel()
    cancel.request("TERM")
    graces: list[float] = []
    with cancel.watched_by(graces.append):
        pass
    assert graces == [10.0]
    assert cancel.by == "TERM"


def test_a_cancel_interrupts_an_upload(stage: Stage) -> None:
    stage.transfers_last = 60
    threading.Timer(0.1, stage.cancel.request, ["INT"]).start()
    began = time.monotonic()
    played = stage.play("""
        steps: [{id: sync, upload: workspace}]
        always: [{id: clean, remove: workspace}]
    """)
    assert time.monotonic() - began < 5
    assert ("sync", "cancelled") in played.ends
    assert played.state.outcome is Outcome.CANCELLED


def test_a_time_limit_interrupts_a_transfer_also_before_a_command_and_under_always(stage: Stage) -> None:
    stage.transfers_last = 60
    played = stage.play("""
        steps: [{id: work, on: vm, run: "true", timeout: 100ms, continue_on_error: true}]
        always: [{id: collect, download: [x/], timeout: 100ms}]
    """)
    assert played.ends == [("work", "timed_out"), ("collect", "timed_out")]
    assert played.order == []
    assert played.state.outcome is Outcome.TIMED_OUT


def test_a_second_cancel_ends_a_download_under_always(stage: Stage) -> None:
    stage.transfers_last = 60
    threading.Timer(0.1, stage.cancel.hurry).start()
    played = stage.play("""
        steps: [{id: nothing, if: "false", run: "true"}]
        always: [{id: collect, download: [x/]}, {id: clean, remove: workspace}]
    """)
    assert played.ends[-2:] == [("collect", "cancelled"), ("clean", "succeeded")]


def test_a_second_cancel_does_not_interrupt_a_cleanup(stage: Stage) -> None:
    stage.removal_lasts = 1.0
    for after in (0.1, 0.4):
        threading.Timer(after, stage.cancel.hurry).start()
    began = time.monotonic()
    played = stage.play("""
        steps: [{id: nothing, if: "false", run: "true"}]
        always: [{id: clean, remove: workspace}]
    """)
    assert played.ends[-1] == ("clean", "succeeded")
    assert time.monotonic() - began > 0.9


def test_a_time_limit_ends_a_cleanup(stage: Stage) -> None:
    stage.removal_lasts = 60
    played = stage.play("""
        steps: [{id: nothing, if: "false", run: "true"}]
        always: [{id: clean, remove: workspace, timeout: 100ms}]
    """)
    assert played.ends[-1] == ("clean", "timed_out")


def test_a_child_hears_its_parent_and_not_the_other_way() -> None:
    whole = Cancel()
    with whole.child() as part, part.child() as inner:
        inner.request("fail_fast", why="a failed")
        assert inner.message == "cancelled: a failed"
        assert not part.requested
        whole.request("INT", "me@here")
        assert (part.by, part.who, part.message) == ("INT", "me@here", "cancelled")
        assert inner.by == "fail_fast"
        whole.hurry()
        assert part.hurried
        assert inner.hurried


def test_a_child_of_a_hurried_cancel_is_hurried() -> None:
    whole = Cancel()
    whole.hurry()
    with whole.child() as part:
        assert part.requested
        assert part.hurried
