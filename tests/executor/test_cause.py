"""A run's last message names the step, the round and the cause."""

from __future__ import annotations

import pytest

from pccpipe.executor.replay import Replay
from pccpipe.outcome import Code, Outcome
from pccpipe.record.events import Event, Warned
from pccpipe.record.run_events import AlwaysStarted
from pccpipe.secrets.proxy.meter import WantedCall
from pccpipe.secrets.proxy.usage import Tokens
from pccpipe.target import Command, Exit
from pccpipe.targets.dummy import Play
from tests.executor.rehearsal import Stage

ROUNDS = """
    steps:
      - id: iterate
        fails_as: not_approved
        repeat: {max: 2, until: steps.review.result.status == 'approved'}
        steps:
          - {id: build, run: "true"}
          - {id: test, run: "true", continue_on_error: true}
          - {id: review, if: steps.test.succeeded, run: "true", result: {path: "r-${{ iteration }}.json"}}
"""


def rejects(command: Command) -> Play:
    return Play(files={"r-1.json": b'{"status": "rejected"}', "r-2.json": b'{"status": "rejected"}'})


@pytest.mark.parametrize(
    ("red", "says", "code", "status"),
    [
        (
            "test",
            "not approved after 2 of 2 rounds: in round 2 test failed (exit code 1), so review did not run",
            Code.TESTS_FAILED,
            "tests_failed",
        ),
        (
            "",
            'not approved after 2 of 2 rounds: in round 2 review gave status "rejected"',
            Code.CHANGES_REQUESTED,
            "not_approved",
        ),
        ("build", "build failed in round 1: exit code 1", None, "failed"),
    ],
)
def test_a_loop_that_misses_its_goal_names_step_round_and_cause(
    stage: Stage, red: str, says: str, code: Code | None, status: str
) -> None:
    stage.script = lambda command: Play(exit=Exit(1)) if command.step == red else rejects(command)
    played = stage.play(ROUNDS)
    assert played.state.message == says
    assert (played.end_of("iterate").message, played.end_of("iterate").code) == (says, code)
    assert (played.state.outcome, played.state.code, played.state.status) == (Outcome.FAILED, code, status)


def test_a_loop_whose_goal_is_the_tests_keeps_its_status(stage: Stage) -> None:
    stage.script = lambda command: Play(exit=Exit(1))
    played = stage.play("""
        steps:
          - id: green
            fails_as: never_green
            repeat: {max: 2, until: steps.test.succeeded}
            steps: [{id: test, run: "true", continue_on_error: true}]
    """)
    assert (played.state.code, played.state.status) == (Code.TESTS_FAILED, "never_green")


def test_the_steps_at_the_end_know_the_runs_code_and_so_does_a_resumed_run(stage: Stage) -> None:
    text = (
        ROUNDS
        + """
    always: [{id: bye, run: "true"}]
    """
    )
    stage.script = lambda command: Play(exit=Exit(1)) if command.step == "test" else Play()
    first = stage.play(text)
    [begun] = first.notes.of(AlwaysStarted)
    assert (begun.code, first.state.code) == (Code.TESTS_FAILED, Code.TESTS_FAILED)
    until_always = first.notes.happenings[: first.notes.happenings.index(begun) + 1]
    happened = [Event(number, 0.0, what) for number, what in enumerate(until_always, 1)]
    assert stage.play(text, replay=Replay(happened)).state.code is Code.TESTS_FAILED
    only_the_end = stage.play(text, replay=Replay([Event(1, 0.0, begun)])).state
    assert (only_the_end.status, only_the_end.code) == ("tests_failed", Code.TESTS_FAILED)


@pytest.mark.parametrize(
    ("left", "code"),
    [
        ({}, Code.NO_RESULT),
        ({"r.json": b" \n"}, Code.NO_RESULT),
        ({"r.json": b"All good."}, Code.BAD_RESULT),
        ({"r.json": b"{"}, Code.BAD_RESULT),
        ({"r.json": b'{"status": 1}'}, Code.BAD_RESULT),
    ],
)
def test_a_missing_and_a_bad_result_have_codes(stage: Stage, left: dict[str, bytes], code: Code) -> None:
    stage.script = lambda command: Play(files=left)
    played = stage.play('steps: [{id: a, run: "true", result: {path: r.json, schema: reviewer-result}}]')
    assert (played.end_of("a").code, played.state.code) == (code, code)
    assert (played.state.outcome, played.state.status) == (Outcome.FAILED, "failed")


def test_a_resumed_loop_has_the_same_message(stage: Stage) -> None:
    stage.script = lambda command: Play(exit=Exit(1)) if command.step == "test" else Play()
    first = stage.play(ROUNDS)
    happened = [Event(number, 0.0, what) for number, what in enumerate(first.notes.happenings[:-1], 1)]
    assert stage.play(ROUNDS, replay=Replay(happened)).state.message == first.state.message


AGENT = """
    secrets: {KEY: {from: env, via: proxy, upstream: "http://192.0.2.1:9/v1"}}
    steps: [{id: build, run: "true", secrets: [KEY], max_tokens: 150}]
"""


def agent(stage: Stage, tokens: int, *, code: int, again: bool = False) -> None:
    """Script an agent whose call uses this many tokens, and which then exits."""

    def play(command: Command) -> Play:
        held = stage.proxy.holder(command.secrets["KEY"])
        assert held is not None
        meter = held[0].meter
        meter.settle(meter.reserve(WantedCall(10, 2, 50), lambda: True), Tokens(0, 0, tokens))
        if again:
            with pytest.raises(Exception, match="tokens"):
                meter.reserve(WantedCall(10, 2, 50), lambda: True)
        return Play(exit=Exit(code))

    stage.secrets, stage.script = {"KEY": "sk-1"}, play


def test_a_step_stopped_by_its_budget_names_the_key_to_raise(stage: Stage) -> None:
    agent(stage, 160, code=1, again=True)
    end = stage.play(AGENT).end_of("build")
    assert end.code is Code.BUDGET_EXCEEDED
    assert end.message.startswith("stopped by its budget: ")
    assert "160 of this turn's max_tokens of 150 are used" in end.message
    assert end.message.endswith("raise `max_tokens` of build (exit code 1)")


def test_a_last_call_over_the_budget_is_a_warning(stage: Stage) -> None:
    agent(stage, 240, code=0)
    played = stage.play(AGENT)
    assert played.end_of("build").outcome is Outcome.SUCCEEDED
    assert [warned.message for warned in played.notes.of(Warned)] == [
        "its last call took more than its budget had left: 240 of this turn's max_tokens of 150 are used"
    ]
    agent(stage, 140, code=0)
    assert not stage.play(AGENT).notes.of(Warned)


def test_output_lost_to_a_full_disk_is_a_warning(stage: Stage) -> None:
    text = 'steps: [{id: a, on: vm, run: "true"}]'
    stage.script = lambda command: Play(exit=Exit(0, output_lost=True))
    played = stage.play(text)
    assert played.state.outcome is Outcome.SUCCEEDED
    [warned] = played.notes.of(Warned)
    assert (warned.step, "the end of its output is lost" in warned.message) == ("a", True)
    assert (played.end_of("a").code, played.state.code) == (Code.OUTPUT_LOST, None)
    stage.script = lambda command: Play(exit=Exit(1, output_lost=True))
    failed = stage.play(text)
    assert (failed.end_of("a").code, failed.state.code, failed.state.status) == (Code.OUTPUT_LOST, None, "failed")
    stage.script = lambda command: Play()
    assert not stage.play(text).notes.of(Warned)
