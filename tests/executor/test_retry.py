"""`retry:` and `continue_on_error:` by exit code, and the waits between attempts."""

from __future__ import annotations

import time

import pytest

from pccpipe.errors import Unavailable
from pccpipe.executor.replay import Replay
from pccpipe.outcome import Code, Outcome, Reason
from pccpipe.record.events import StepRetrying
from pccpipe.spec.model import Retry
from pccpipe.target import Command, Exit
from pccpipe.targets.dummy import Play
from tests.executor.rehearsal import Played, Stage
from tests.executor.test_replay import began
from tests.record.script import events as stamped


def exits(*codes: int) -> list[Play]:
    return [Play(exit=Exit(code, "KILL" if code == 137 else None, out_of_memory=code == 137)) for code in codes]


def play(stage: Stage, plays: list[Play], step: str) -> Played:
    left = iter(plays)
    stage.script = lambda command: next(left) if command.step == "a" else Play()
    return stage.play(f"steps: [{{id: a, run: x, {step}}}, {{id: after, run: x}}]")


def test_an_exit_code_that_retry_names_leads_to_another_attempt(stage: Stage) -> None:
    played = play(stage, exits(75, 137, 0), "retry: {attempts: 5, backoff: 0, exit_codes: [75, 137]}")
    assert [(each.attempt, each.exit_code) for each in played.notes.of(StepRetrying)] == [(2, 75), (3, 137)]
    assert played.ends == [("a", "succeeded"), ("after", "succeeded")]


def test_another_exit_code_ends_the_step_and_its_end_names_the_key(stage: Stage) -> None:
    played = play(stage, exits(75, 2), "retry: {attempts: 5, backoff: 0, exit_codes: [75]}")
    assert played.order == ["a@local", "a@local"]
    assert played.end_of("a").message == "exit code 2 (not in `retry: exit_codes`)"


def test_the_last_attempt_does_not_name_the_key(stage: Stage) -> None:
    played = play(stage, exits(2), "retry: {attempts: 1, exit_codes: [75]}")
    assert played.end_of("a").message == "exit code 2"


def test_a_failure_without_an_exit_code_of_its_own_is_not_retried_by_exit_code(stage: Stage) -> None:
    step = "retry: {attempts: 3, backoff: 0, exit_codes: [75]}, result: {path: r.json}"
    played = play(stage, exits(0), step)
    assert played.end_of("a").code is Code.NO_RESULT
    assert "no exit code" in played.end_of("a").message
    assert len(played.order) == 1


def test_on_still_names_the_other_outcomes(stage: Stage) -> None:
    gone = Play(unavailable=Unavailable(Reason.NAME_TAKEN, "taken"))
    step = "retry: {attempts: 3, backoff: 0, exit_codes: [75]}"
    assert play(stage, [gone, *exits(75, 0)], step).ends[0] == ("a", "succeeded")
    only = "retry: {attempts: 3, backoff: 0, exit_codes: [75], on: [failed]}"
    assert play(stage, [gone], only).end_of("a").outcome is Outcome.UNAVAILABLE


def test_each_leg_and_the_fallback_retry_by_exit_code(stage: Stage) -> None:
    codes = {"unit[n=1]": iter([75, 0]), "unit[n=2]": iter([2]), "back": iter([75, 0])}

    def script(command: Command) -> Play:
        if command.container:
            return Play(unavailable=Unavailable(Reason.IMAGE_MISSING, "no such image"))
        return Play(exit=Exit(next(codes[command.step])))

    stage.script = script
    played = stage.play("""
        containers: {box: {image: x}}
        steps:
          - id: back
            container: box
            run: x
            retry: {attempts: 2, backoff: 0, exit_codes: [75]}
            fallback: {on: local}
          - id: unit
            matrix: {n: [1, 2]}
            run: "x ${{ matrix.n }}"
            retry: {attempts: 3, backoff: 0, exit_codes: [75]}
    """)
    assert played.ends == [
        ("back", "succeeded"),
        ("unit[n=1]", "succeeded"),
        ("unit[n=2]", "failed"),
        ("unit", "failed"),
    ]


@pytest.mark.parametrize(
    ("code", "word", "goes_on"),
    [
        (1, "{exit_codes: [1, 2]}", True),
        (1, "{exit_codes: 1}", True),
        (3, "{exit_codes: [1, 2]}", False),
        (3, "true", True),
    ],
)
def test_continue_on_error_by_exit_code(stage: Stage, code: int, word: str, goes_on: bool) -> None:
    played = play(stage, exits(code), f"continue_on_error: {word}")
    assert played.end_of("a").ignored is goes_on
    assert ("after", "succeeded") in played.ends if goes_on else len(played.ends) == 1
    assert ("continue_on_error: exit_codes" in played.end_of("a").message) is not goes_on


def test_a_step_that_did_not_fail_by_its_exit_code_does_not_continue(stage: Stage) -> None:
    stage.cancel.hurried = True
    word = "continue_on_error: {exit_codes: [1, 143]}, result: {path: r.json}"
    assert not play(stage, [Play(exit=Exit(0))], word).end_of("a").ignored
    timed_out = play(stage, [Play(lasts=60, exit=Exit(1))], "timeout: 100ms, continue_on_error: {exit_codes: [1, 143]}")
    assert timed_out.ends == [("a", "timed_out")]


def test_always_steps_and_legs_continue_by_exit_code(stage: Stage) -> None:
    stage.script = lambda command: Play(exit=Exit(int(command.script[-1])))
    played = stage.play("""
        steps: [{id: unit, matrix: {n: [1, 0]}, run: "x ${{ matrix.n }}", continue_on_error: {exit_codes: 1}}]
        always:
          - {id: one, run: x 1, continue_on_error: {exit_codes: 1}}
          - {id: two, run: x 2, continue_on_error: {exit_codes: 1}}
    """)
    assert played.ends[2] == ("unit", "succeeded")
    assert played.ending.message == "two (always): exit code 2 (not in `continue_on_error: exit_codes`)"


def test_always_steps_of_a_group_continue_by_exit_code(stage: Stage) -> None:
    stage.script = lambda command: Play(exit=Exit(int(command.script[-1])))
    ends = {}
    for code in (1, 2):
        played = stage.play(f"""
            steps:
              - id: g
                steps: [{{id: a, run: x 0}}]
                always: [{{id: tidy, run: x {code}, continue_on_error: {{exit_codes: 1}}}}]
        """)
        ends[code] = played.end_of("g").outcome
    assert ends == {1: Outcome.SUCCEEDED, 2: Outcome.FAILED}


def test_waits_double_up_to_max_backoff() -> None:
    retry = Retry(attempts=100, backoff=1.0, max_backoff=5.0)
    assert [retry.wait_before(number) for number in range(5)] == [1, 2, 4, 5, 5]
    assert retry.wait_before(98) == 5
    assert Retry(attempts=100, backoff=3e9).wait_before(98) > 0


def test_a_wait_to_the_end_of_the_time_limit_ends_the_step_at_once(stage: Stage) -> None:
    began_at = time.monotonic()
    played = play(stage, exits(1), "timeout: 30s, retry: {attempts: 2, backoff: 60s}")
    assert time.monotonic() - began_at < 20
    assert not played.notes.of(StepRetrying)
    assert "s left, and the wait before the next attempt is 60 s" in played.end_of("a").message


def test_a_recorded_retry_is_replayed_whatever_exit_codes_say_now(stage: Stage) -> None:
    text = "steps: [{id: a, run: x, retry: {attempts: 3, backoff: 0, exit_codes: [75]}}]"
    left = iter(exits(75, 0))
    stage.script = lambda _: next(left)
    whole = stage.play(text).notes.happenings
    upto = next(index for index, each in enumerate(whole) if isinstance(each, StepRetrying)) + 1
    # As an earlier version wrote it.
    older = [*whole[: upto - 1], StepRetrying("a", 2, 3, Outcome.FAILED, 0.0)]
    for recorded in (whole[:upto], older):
        stage.script = lambda _: Play()
        resumed = stage.play(text, replay=Replay(stamped([began("a"), *recorded])))
        assert resumed.ends == [("a", "succeeded")]
        assert resumed.order == ["a@local"]
