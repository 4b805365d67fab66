"""Order, conditions, repeat, parallel, matrix, continue_on_error, always."""

from __future__ import annotations

import threading
import time

from pccpipe.errors import ActionError
from pccpipe.outcome import Outcome
from pccpipe.record.events import RoundStarted, StepRetrying
from pccpipe.record.run_events import AlwaysStarted
from pccpipe.target import Command, Exit
from pccpipe.targets.dummy import Play, says
from tests.executor.rehearsal import Stage


def failing(*steps: str) -> object:
    return lambda command: Play(exit=Exit(1)) if command.step in steps else Play()


def test_steps_run_in_order_and_the_run_succeeds(stage: Stage) -> None:
    played = stage.play("""
        steps:
          - {id: a, run: "true"}
          - {id: b, on: vm, run: "true"}
    """)
    assert played.order == ["a@local", "b@vm"]
    assert played.state.outcome is Outcome.SUCCEEDED


def test_a_failed_step_ends_the_run_and_later_steps_do_not_begin(stage: Stage) -> None:
    stage.script = failing("a")  # type: ignore[assignment]
    played = stage.play("""
        steps:
          - {id: a, run: "false"}
          - {id: b, run: "true"}
    """)
    assert played.order == ["a@local"]
    assert played.state.outcome is Outcome.FAILED
    assert played.state.message == "a failed: exit code 1"


def test_continue_on_error_continues_and_the_step_stays_failed(stage: Stage) -> None:
    stage.script = failing("a")  # type: ignore[assignment]
    played = stage.play("""
        steps:
          - {id: a, run: "false", continue_on_error: true}
          - {id: b, run: "true", if: steps.a.failed}
          - {id: c, run: "true", if: steps.a.succeeded}
    """)
    assert played.ends == [("a", "failed"), ("b", "succeeded"), ("c", "skipped")]
    assert played.end_of("a").ignored
    assert played.state.outcome is Outcome.SUCCEEDED


def test_fails_as_is_the_status_of_a_run_that_the_step_ended(stage: Stage) -> None:
    stage.script = failing("baseline")  # type: ignore[assignment]
    played = stage.play("""
        steps:
          - {id: baseline, run: "false", fails_as: baseline_failed, retry: {attempts: 2, backoff: 0s}}
    """)
    assert (played.state.outcome, played.state.status) == (Outcome.FAILED, "baseline_failed")
    assert len(played.notes.of(StepRetrying)) == 1
    assert len(played.order) == 2


def test_repeat_runs_rounds_until_its_condition_holds(stage: Stage) -> None:
    def script(command: Command) -> Play:
        status = "approved" if command.serial == 3 else "changes_requested"
        return Play(files={"result.json": b'{"status": "%s"}' % status.encode()})

    stage.script = script
    played = stage.play("""
        steps:
          - id: loop
            repeat: {max: 5, until: steps.review.result.status == 'approved'}
            steps:
              - id: review
                run: "true"
                result: {path: "review/iter-${{ iteration }}/result.json"}
    """)
    assert [event.round for event in played.notes.of(RoundStarted)] == [1, 2, 3]
    assert played.state.outcome is Outcome.SUCCEEDED
    assert (played.run_dir / "review/iter-3/result.json").read_text() == '{"status": "approved"}'


def test_repeat_fails_when_its_rounds_are_used_up(stage: Stage) -> None:
    played = stage.play("""
        inputs: {most: {type: integer, default: 2}}
        steps:
          - id: loop
            fails_as: not_approved
            repeat: {max: "${{ inputs.most }}", until: steps.a.exit_code == 7}
            steps: [{id: a, run: "true"}]
    """)
    assert (played.state.outcome, played.state.status) == (Outcome.FAILED, "not_approved")
    assert played.state.message == "not approved after 2 of 2 rounds"
    assert [path for path, _ in played.ends] == ["loop[1].a", "loop[2].a", "loop"]


def test_a_skipped_step_has_an_empty_result_which_makes_until_false(stage: Stage) -> None:
    played = stage.play("""
        steps:
          - id: loop
            repeat: {max: 2, until: steps.review.result.status == 'approved'}
            steps:
              - {id: review, if: iteration > 5, run: "true", result: {path: r.json}}
    """)
    assert played.state.outcome is Outcome.FAILED


def test_steps_see_the_output_of_earlier_ones(stage: Stage) -> None:
    stage.script = lambda command: Play(output=(says("17 tests passed\n"),))
    played = stage.play("""
        steps:
          - {id: a, run: "true"}
          - {id: b, run: "echo ${{ steps.a.output }}"}
    """)
    (command,) = [c for target in played.targets.values() for c in target.commands if c.step == "b"]
    assert command.script == "echo '17 tests passed\n'"


def test_parallel_steps_run_at_the_same_time_and_all_end(stage: Stage) -> None:
    together = threading.Barrier(3, timeout=5)

    def script(command: Command) -> Play:
        together.wait()
        return Play(exit=Exit(1 if command.step == "b" else 0))

    stage.script = script
    played = stage.play("""
        steps:
          - id: group
            parallel:
              - {id: a, run: "true"}
              - {id: b, run: "true"}
              - {id: c, run: "true"}
    """)
    assert sorted(played.ends) == [
        ("group", "failed"),
        ("group.a", "succeeded"),
        ("group.b", "failed"),
        ("group.c", "succeeded"),
    ]
    assert played.state.message == "group failed: b: exit code 1"


def test_a_matrix_runs_a_leg_for_each_combination(stage: Stage) -> None:
    played = stage.play("""
        steps:
          - id: unit
            matrix: {node: [18, 20], os: [a, b]}
            run: test ${{ matrix.node }} ${{ matrix.os }}
    """)
    scripts = [command.script for target in played.targets.values() for command in target.commands]
    assert scripts == ["test 18 a", "test 18 b", "test 20 a", "test 20 b"]
    assert ("unit[node=18,os=b]", "succeeded") in played.ends


def test_always_steps_run_in_order_after_a_failure_and_see_the_status(stage: Stage) -> None:
    stage.script = failing("a", "first")  # type: ignore[assignment]
    played = stage.play("""
        steps: [{id: a, run: "false", fails_as: tests_failed}]
        always:
          - {id: first, run: "echo ${{ run.status }} ${{ run.outcome }}"}
          - {id: second, run: "true"}
    """)
    assert played.order == ["a@local", "first@local", "second@local"]
    (first,) = [c for target in played.targets.values() for c in target.commands if c.step == "first"]
    assert first.script == "echo tests_failed failed"
    assert played.state.status == "tests_failed"
    assert played.notes.of(AlwaysStarted) == [AlwaysStarted(Outcome.FAILED, "tests_failed")]


def test_a_failed_always_step_fails_a_run_that_had_succeeded(stage: Stage) -> None:
    stage.broken = ActionError("disk full")
    played = stage.play("""
        steps: [{id: a, run: "true"}]
        always: [{id: collect, download: reports/}, {id: b, run: "true"}]
    """)
    assert played.state.outcome is Outcome.FAILED
    assert "collect" in played.state.message
    assert "disk full" in played.state.message
    assert ("b", "succeeded") in played.ends


def test_always_steps_run_even_after_a_bug_which_is_raised_then(stage: Stage) -> None:
    class Bug(Exception):
        pass

    def script(command: Command) -> Play:
        if command.step == "a":
            raise Bug
        return Play()

    stage.script = script
    seen: list[str] = []
    stage.on_event = lambda happening: seen.append(type(happening).__name__)
    try:
        stage.play("""
            steps: [{id: a, run: "true"}]
            always: [{id: b, run: "true"}]
        """)
    except Bug:
        pass
    else:
        raise AssertionError("the bug was swallowed")
    assert "AlwaysStarted" in seen
    assert seen[-1] == "StepEnded"


def test_the_targets_are_closed_whatever_happens(stage: Stage) -> None:
    stage.script = failing("a")  # type: ignore[assignment]
    played = stage.play('steps: [{id: a, run: "false"}]')
    assert all(target.closed for target in played.targets.values())
    assert not any(target.left for target in played.targets.values())


def test_an_expression_that_cannot_be_evaluated_fails_its_step_with_its_message(stage: Stage) -> None:
    stage.script = lambda command: Play(files={"result.json": b'{"a": 1}'})
    played = stage.play("""
        steps:
          - {id: a, run: "true", result: {path: result.json}}
          - {id: b, run: "echo ${{ steps.a.result.a.nothing }}"}
    """)
    assert played.end_of("b").outcome is Outcome.FAILED
    assert "nothing" in played.end_of("b").message


def test_a_time_limit_of_the_pipeline_ends_the_step_that_runs(stage: Stage) -> None:
    stage.script = lambda command: Play(lasts=30)
    began = time.monotonic()
    played = stage.play("""
        timeout: 200ms
        steps: [{id: a, run: sleep 30}, {id: b, run: "true"}]
        always: [{id: c, run: "true", timeout: 100ms}]
    """)
    assert time.monotonic() - began < 5
    assert played.ends == [("a", "timed_out"), ("c", "timed_out")]
    assert played.state.outcome is Outcome.TIMED_OUT
    assert "pipeline" in played.end_of("a").message
