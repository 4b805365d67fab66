"""An agent may ask for input: the run waits, and the answer reaches the agent's next turn."""

from __future__ import annotations

import json
import time

import pytest

from pccpipe.executor.input_request import requested_input, unmarked_request
from pccpipe.executor.replay import Replay
from pccpipe.outcome import Outcome, Place
from pccpipe.record.events import Event, Happening, InputAsked, InputGiven, Warned
from pccpipe.record.run_events import AlwaysStarted, RunWaiting
from pccpipe.record.state import RunState
from pccpipe.target import Command
from pccpipe.targets.dummy import Play
from tests.executor.rehearsal import DummyTargets, Notes, Played, Stage
from tests.executor.test_replay import began
from tests.record.script import events as stamped

PLEA = """I am stuck.
<<<NEED_HELP>>>
what_i_tried: guessing
what_i_need: the host of the database
inputs:
  - {key: db_host, label: "Host name: of the database"}
  - {key: db_port}
<<<END_HELP>>>
"""


def report(escalation: str = "") -> dict[str, bytes]:
    return {"result.json": json.dumps({"status": "approved", "escalation": escalation}).encode()}


def test_a_request_is_the_text_between_its_marks() -> None:
    wanted = requested_input({"escalation": PLEA})
    assert wanted is not None
    assert (wanted.tried, wanted.needed) == ("guessing", "the host of the database")
    assert wanted.inputs == {"db_host": "Host name: of the database", "db_port": "db_port"}


@pytest.mark.parametrize(
    "written",
    [
        "what_i_need: [unclosed",
        "just words: with: colons",
        "nothing of yaml",
        "what_i_need: x\ninputs: {key: a}",
        "what_i_need: x\ninputs: [{key: 'a b; rm'}]",
        "what_i_need: x\ninputs: [" + "{key: a}," * 60 + "]",
        "",
    ],
)
def test_a_request_of_invalid_yaml_becomes_text_that_asks_for_an_answer(written: str) -> None:
    wanted = requested_input({"escalation": f"<<<NEED_HELP>>>\n{written}\n<<<END_HELP>>>"})
    assert wanted is not None
    assert (wanted.needed, list(wanted.inputs)) == (written, ["answer"])


def test_a_request_without_inputs_asks_for_an_answer() -> None:
    wanted = requested_input({"escalation": "<<<NEED_HELP>>>\nwhat_i_need: a decision"})
    assert wanted is not None
    assert (wanted.needed, list(wanted.inputs)) == ("a decision", ["answer"])


@pytest.mark.parametrize("result", [None, [], "x", {}, {"escalation": ""}, {"escalation": 3}])
def test_a_result_without_marks_has_no_request(result: object) -> None:
    assert requested_input(result) is None  # type: ignore[arg-type]
    assert unmarked_request(result) == ""  # type: ignore[arg-type]


LOOP = """
steps:
  - id: loop
    repeat: {max: 2, until: steps.review.result.status == 'approved'}
    steps:
      - id: build
        run: "x"
        files: {prompt: {text: "host ${{ steps.build.answers.db_host }}"}}
        result: {path: "builder/iter-${{ iteration }}/result.json"}
      - {id: review, run: "x", result: {path: "reviewer/iter-${{ iteration }}/result.json"}}
always: [{id: tidy, run: x}]
"""


def asking_in(*commands: str) -> object:
    return lambda command: Play(files=report(PLEA if command.id in commands else ""))


def past_of(played: Played, *more: Happening) -> Replay:
    return Replay(stamped([began(), *played.notes.happenings, *more], time.time() - 1000))


def given(**values: str) -> InputGiven:
    return InputGiven("loop[1].build", values)


def test_a_run_waits_when_its_agent_asks_for_input(stage: Stage) -> None:
    stage.script = asking_in("loop-1.build-1")  # type: ignore[assignment]
    played = stage.play(LOOP)
    assert (played.state.outcome, played.state.status) == (None, "waiting_for_input")
    assert played.ends == [("loop[1].build", "succeeded")]
    assert played.notes.of(AlwaysStarted) == []
    (asked,) = played.notes.of(InputAsked)
    assert asked.step == "loop[1].build"
    assert "remove" in played.workspace.calls, "nobody knows what becomes of the VM meanwhile"
    assert all(target.closed for target in played.targets.values())


def test_the_answer_is_in_the_next_rounds_prompt_and_the_round_does_not_count(stage: Stage) -> None:
    stage.script = asking_in("loop-1.build-1")  # type: ignore[assignment]
    first = stage.play(LOOP)
    targets = stage.targets()
    resumed = stage.play(
        LOOP, Notes(), targets, past_of(first, RunWaiting(""), given(db_host="h.example", db_port="1"))
    )
    commands = targets[Place.LOCAL].commands
    assert [command.id for command in commands] == ["loop-2.build-2", "loop-2.review-1", "tidy-1"]
    assert commands[0].files["prompt"] == b"host h.example"
    assert resumed.state.outcome is Outcome.SUCCEEDED


def test_the_last_round_too_is_repeated_after_an_answer(stage: Stage) -> None:
    stage.script = lambda command: Play(files=report(PLEA if command.step == "build" else ""))
    text = LOOP.replace("max: 2", "max: 1")
    first = stage.play(text)
    again = stage.play(text, Notes(), None, past_of(first, RunWaiting(""), given(db_host="h", db_port="1")))
    assert again.state.status == "waiting_for_input"
    assert [asked.step for asked in again.notes.of(InputAsked)] == ["loop[2].build"]


def test_the_run_waits_for_all_inputs_and_asks_only_once(stage: Stage) -> None:
    stage.script = asking_in("loop-1.build-1")  # type: ignore[assignment]
    first = stage.play(LOOP)
    again = stage.play(LOOP, Notes(), None, past_of(first, RunWaiting(""), given(db_host="h")))
    assert again.state.status == "waiting_for_input"
    assert again.notes.happenings == []


def test_outside_of_rounds_the_step_itself_has_another_turn(stage: Stage) -> None:
    text = """
        steps:
          - {id: build, run: "x ${{ steps.build.answers.db_host }}", result: {path: builder/result.json}}
          - {id: after, run: "x ${{ steps.build.answers.db_port }}"}
    """
    stage.script = asking_in("build-1")  # type: ignore[assignment]
    first = stage.play(text)
    assert first.state.status == "waiting_for_input"
    targets = stage.targets()
    answer = InputGiven("build", {"db_host": "h", "db_port": "77"})
    resumed = stage.play(text, Notes(), targets, past_of(first, RunWaiting(""), answer))
    assert [(command.id, command.script) for command in targets[Place.LOCAL].commands] == [
        ("build-2", "x h"),
        ("after-1", "x 77"),
    ]
    assert resumed.state.outcome is Outcome.SUCCEEDED


def test_a_step_beside_one_that_asks_runs_to_its_end(stage: Stage) -> None:
    text = """
        steps:
          - id: both
            parallel:
              - {id: build, run: "x", result: {path: builder/result.json}}
              - {id: other, run: "x"}
          - {id: after, run: "x"}
    """

    def script(command: Command) -> Play:
        return Play(lasts=0.2) if command.step == "other" else Play(files=report(PLEA if command.serial == 1 else ""))

    stage.script = script
    first = stage.play(text)
    assert first.state.status == "waiting_for_input"
    assert sorted(first.ends) == [("both.build", "succeeded"), ("both.other", "succeeded")]
    targets: DummyTargets = stage.targets()
    answer = InputGiven("both.build", {"db_host": "h", "db_port": "77"})
    resumed = stage.play(text, Notes(), targets, past_of(first, RunWaiting(""), answer))
    assert [command.id for command in targets[Place.LOCAL].commands] == ["both.build-2", "after-1"]
    assert resumed.state.outcome is Outcome.SUCCEEDED


def test_a_cancelled_run_does_not_wait_for_input(stage: Stage) -> None:
    stage.script = asking_in("loop-1.build-1")  # type: ignore[assignment]
    first = stage.play(LOOP)
    stage.cancel.request("cancel")
    resumed = stage.play(LOOP, Notes(), None, past_of(first, RunWaiting("")))
    assert resumed.state.outcome is Outcome.CANCELLED
    assert resumed.end_of("tidy").outcome is Outcome.SUCCEEDED


def test_waiting_does_not_count_against_the_time_limit(stage: Stage) -> None:
    text = LOOP.strip() + "\ntimeout: 60s\n"
    stage.script = asking_in("loop-1.build-1")  # type: ignore[assignment]
    first = stage.play(text)
    happenings = [began(), *first.notes.happenings]
    # It ran for 10 s, then waited for two hours.
    waiting = time.time() - 7200
    events = stamped(happenings, waiting - 10, 0.1)
    events += stamped([RunWaiting(""), given(db_host="h", db_port="1")], waiting, 1)
    resumed = stage.play(text, Notes(), None, Replay(events))
    assert resumed.state.outcome is Outcome.SUCCEEDED


def test_a_request_without_marks_is_a_warning_and_stops_nothing(stage: Stage) -> None:
    stage.script = lambda command: Play(files=report("please look at the build server"))
    played = stage.play(LOOP)
    assert played.state.outcome is Outcome.SUCCEEDED
    assert "build server" in played.notes.of(Warned)[0].message


def test_the_state_lists_the_inputs_that_are_missing() -> None:
    state = RunState()
    asked = InputAsked("build", "guessing", "a host", {"db_host": "Host", "db_port": "Port"})
    events: list[Event] = stamped(
        [began(), asked, RunWaiting("build needs a host"), InputGiven("build", {"db_port": "1"})]
    )
    for event in events:
        state.apply(event)
    assert state.status == "waiting_for_input"
    assert [question.missing for question in state.open_questions] == [["db_host"]]
    assert state.to_json()["questions"] == [
        {
            "step": "build",
            "tried": "guessing",
            "needed": "a host",
            "inputs": {"db_host": "Host", "db_port": "Port"},
            "given": {"db_port": "1"},
            "above": {},
        }
    ]
