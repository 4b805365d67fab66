"""A step falls back only when its target was unavailable, and the record says so."""

from __future__ import annotations

import time

import pytest
from pytest_mock import MockerFixture

from pccpipe.errors import Broken, Unavailable
from pccpipe.outcome import MAY_FALL_BACK, IsolationMode, Outcome, Place, Reason, Stream
from pccpipe.record.events import StepDowngraded, StepEnded, TargetUnavailable, Warned
from pccpipe.target import Chunk, Command, Exit
from pccpipe.targets.dummy import Play, says
from tests.executor.rehearsal import Script, Stage

NO_ENGINE = Unavailable(Reason.ENGINE_STOPPED, "dial unix /var/run/docker.sock: connect: connection refused")

AGENT = """
    containers: {agent: {image: "agent:1"}}
    steps:
      - id: build
        on: container
        container: agent
        run: agent --bypass-sandbox
        fallback: {on: local, run: agent --sandbox}
"""


def no_containers(command: Command) -> Play:
    return Play(unavailable=NO_ENGINE) if command.container else Play()


def test_a_step_runs_the_fallbacks_command_if_its_target_is_unavailable(stage: Stage) -> None:
    stage.script = no_containers
    played = stage.play(AGENT)
    assert played.order == ["build@local"]
    assert played.targets[Place.LOCAL].commands[0].script == "agent --sandbox"
    assert played.notes.of(StepDowngraded) == [
        StepDowngraded("build", Place.CONTAINER, Place.LOCAL, Reason.ENGINE_STOPPED, NO_ENGINE.words)
    ]
    assert played.state.outcome is Outcome.SUCCEEDED


def test_without_a_fallback_the_step_is_unavailable_with_the_targets_words(stage: Stage) -> None:
    stage.script = lambda command: Play(unavailable=NO_ENGINE)
    played = stage.play('steps: [{id: a, on: vm, run: "true"}]')
    end = played.end_of("a")
    assert (end.outcome, end.reason, end.message) == (Outcome.UNAVAILABLE, Reason.ENGINE_STOPPED, NO_ENGINE.words)
    assert played.state.outcome is Outcome.UNAVAILABLE


@pytest.mark.parametrize("code", [1, 2, 125, 126, 127, 137, 255])
def test_no_exit_code_causes_a_fallback(stage: Stage, code: int) -> None:
    stage.script = lambda command: Play(exit=Exit(code))
    played = stage.play(AGENT)
    assert played.order == ["build@container"]
    assert played.end_of("build").outcome is Outcome.FAILED
    assert not played.notes.of(StepDowngraded)


@pytest.mark.parametrize(
    "text",
    ["permission denied", "docker: command not found", "Cannot connect to the Docker daemon", "Connection refused"],
)
def test_no_text_in_the_output_causes_a_fallback(stage: Stage, text: str) -> None:
    stage.script = lambda command: Play(output=(says(text + "\n"), Chunk(Stream.STDERR, text.encode())), exit=Exit(1))
    played = stage.play(AGENT)
    assert played.order == ["build@container"]
    assert played.end_of("build").outcome is Outcome.FAILED


def test_a_lost_command_does_not_fall_back(stage: Stage) -> None:
    stage.script = lambda command: Play(lost="the VM did not come back")
    played = stage.play(AGENT)
    assert played.order == ["build@container"]
    assert played.end_of("build").outcome is Outcome.LOST
    assert played.state.outcome is Outcome.LOST


def test_no_fallback_forbids_fallbacks(stage: Stage) -> None:
    stage.script = no_containers
    stage.fallback_allowed = False
    played = stage.play(AGENT)
    assert played.order == []
    assert played.end_of("build").outcome is Outcome.UNAVAILABLE


def test_isolation_required_forbids_the_fallback_of_the_step(stage: Stage) -> None:
    stage.script = no_containers
    played = stage.play(AGENT + "        isolation: required\n")
    assert played.order == []
    assert played.end_of("build").outcome is Outcome.UNAVAILABLE


@pytest.mark.parametrize("reason", sorted(set(Reason) - MAY_FALL_BACK))
def test_a_reason_that_isolated_code_or_pccpipe_can_cause_allows_no_fallback(stage: Stage, reason: Reason) -> None:
    stage.script = lambda command: Play(unavailable=Unavailable(reason, "the engine's words"))
    played = stage.play(AGENT)
    assert played.order == []
    assert played.end_of("build").outcome is Outcome.UNAVAILABLE
    assert played.end_of("build").reason is reason
    assert not played.notes.of(StepDowngraded)


def test_retries_on_unavailable_come_before_the_fallback(stage: Stage) -> None:
    stage.script = no_containers
    played = stage.play(AGENT + "        retry: {attempts: 3, backoff: 0s}\n")
    assert [event.attempt for event in played.notes.of(TargetUnavailable)] == [1, 2, 3]
    assert played.order == ["build@local"]


def test_the_projects_choice_of_place_is_not_a_downgrade_and_runs_the_command_for_it(stage: Stage) -> None:
    stage.mode = IsolationMode.LOCAL
    played = stage.play(AGENT)
    assert played.order == ["build@local"]
    assert played.targets[Place.LOCAL].commands[0].script == "agent --sandbox"
    assert not played.notes.of(StepDowngraded)


def test_in_mode_container_vm_steps_run_locally_and_container_steps_in_containers(stage: Stage) -> None:
    stage.mode = IsolationMode.CONTAINER
    played = stage.play("""
        containers: {agent: {image: "agent:1"}}
        steps:
          - {id: a, on: vm, run: "true"}
          - {id: b, on: container, container: agent, run: "true"}
    """)
    assert played.order == ["a@local", "b@container"]
    assert not played.notes.of(StepDowngraded)


def test_an_upload_without_the_vm_stays_local_if_it_has_a_fallback(stage: Stage) -> None:
    stage.vm_gone = Unavailable(Reason.SSH_REFUSED, "connection refused")
    played = stage.play("steps: [{id: sync, upload: workspace, fallback: {on: local}}]")
    assert played.state.outcome is Outcome.SUCCEEDED
    assert played.notes.of(StepDowngraded)[0].reason is Reason.SSH_REFUSED


def test_an_upload_without_the_vm_is_unavailable_otherwise(stage: Stage) -> None:
    stage.vm_gone = Unavailable(Reason.SSH_REFUSED, "connection refused")
    played = stage.play("steps: [{id: sync, upload: workspace}]")
    assert played.end_of("sync").outcome is Outcome.UNAVAILABLE


def away(times: int, error: Unavailable) -> Script:
    """Script a place that is unavailable this many times, then works."""
    left = [times]

    def script(command: Command) -> Play:
        left[0] -= 1
        return Play(unavailable=error) if left[0] >= 0 else Play()

    return script


def test_a_step_waits_for_a_vm_that_was_used_and_does_not_fall_back(stage: Stage, mocker: MockerFixture) -> None:
    mocker.patch("pccpipe.executor.waiting.FIRST_PAUSE", 0.01)
    stage.had_vm = True
    stage.script = away(3, Unavailable(Reason.SSH_REFUSED, "Connection refused"))
    played = stage.play("steps: [{id: a, on: vm, run: x, fallback: {on: local}}]")
    assert played.order == ["a@vm"]
    assert played.notes.of(TargetUnavailable) == []


def test_a_run_that_waits_names_the_cause_and_the_fix(stage: Stage, mocker: MockerFixture) -> None:
    mocker.patch("pccpipe.executor.waiting.FIRST_PAUSE", 0.01)
    mocker.patch("pccpipe.executor.waiting.WARN_AFTER", 0.0)
    stage.had_vm, stage.lost_after = True, 60.0
    stage.script = away(3, Unavailable(Reason.SSH_SESSION_REFUSED, "vm opens no session", "set MaxSessions 10"))
    played = stage.play("steps: [{id: a, on: vm, run: x}]")
    (warned,) = played.notes.of(Warned)
    assert warned.message.startswith("vm opens no session (ssh_session_refused); waiting for it for up to ")
    assert warned.message.endswith(" s; fix: set MaxSessions 10")


def test_a_vm_that_was_used_and_stays_away_stops_the_run(stage: Stage, mocker: MockerFixture) -> None:
    mocker.patch("pccpipe.executor.waiting.FIRST_PAUSE", 0.01)
    stage.had_vm, stage.lost_after = True, 0.3
    stage.script = away(1000, Unavailable(Reason.SSH_REFUSED, "Connection refused"))
    began = time.monotonic()
    played = stage.play("steps: [{id: a, on: vm, run: x}]\nalways: [{id: b, run: x}]")
    assert played.state.stopped
    assert played.state.outcome is Outcome.UNAVAILABLE
    assert len(played.notes.of(TargetUnavailable)) == 1
    assert played.order == []
    assert 0.1 < time.monotonic() - began < 2


def test_all_steps_share_one_wait_for_a_vm_that_stays_away(stage: Stage, mocker: MockerFixture) -> None:
    mocker.patch("pccpipe.executor.waiting.FIRST_PAUSE", 0.01)
    mocker.patch("pccpipe.executor.waiting.PATIENCE", 0.05)
    stage.had_vm, stage.lost_after = True, 3.0
    gone = Unavailable(Reason.SSH_REFUSED, "Connection refused")
    stage.script = lambda command: Play(lost="the VM is away") if command.step == "a" else Play(unavailable=gone)
    began = time.monotonic()
    played = stage.play("""
    steps: [{id: a, on: vm, run: x}]
    always:
      - {id: b, on: vm, run: x, retry: {attempts: 3, on: [unavailable]}}
      - {id: c, on: vm, run: x}
    """)
    assert [outcome for _, outcome in played.ends] == ["lost", "unavailable", "unavailable"]
    # The run already waited for the lost command.
    assert time.monotonic() - began < 1.5


def test_a_place_that_stays_away_stops_the_run_also_under_continue_on_error(
    stage: Stage, mocker: MockerFixture
) -> None:
    mocker.patch("pccpipe.executor.waiting.FIRST_PAUSE", 0.01)
    stage.had_vm, stage.lost_after = True, 0.2
    stage.script = away(1000, Unavailable(Reason.SSH_REFUSED, "Connection refused"))
    text = "steps: [{id: a, on: vm, run: x, continue_on_error: true}, {id: b, on: local, run: x}]"
    played = stage.play(text)
    assert played.state.stopped
    assert [end.ignored for end in played.notes.of(StepEnded)] == [False]
    stage.script = lambda command: Play(unavailable=Unavailable(Reason.PROCESSES_LEFT, "sh"))
    assert stage.play(text).state.stopped
    # No other reason stops the run.
    stage.script = lambda command: (
        Play(unavailable=Unavailable(Reason.SSH_AUTH_FAILED, "no")) if "a" in command.id else Play()
    )
    assert stage.play(text).order == ["b@local"]


def test_a_broken_call_is_retried_also_at_a_place_that_was_never_used(stage: Stage, mocker: MockerFixture) -> None:
    mocker.patch("pccpipe.executor.waiting.FIRST_PAUSE", 0.01)
    stage.script = away(2, Broken(Reason.ENGINE_STOPPED, "the connection ended"))
    played = stage.play("containers: {b: {image: i}}\nsteps: [{id: a, on: container, container: b, run: x}]")
    assert played.order == ["a@container"]


def test_a_step_does_not_wait_for_a_vm_never_used_or_a_stopped_engine(stage: Stage) -> None:
    for error in (Unavailable(Reason.SSH_REFUSED, "no"), Unavailable(Reason.ENGINE_STOPPED, "no")):
        stage.script = lambda command, error=error: Play(unavailable=error)  # type: ignore[misc]
        began = time.monotonic()
        assert stage.play("steps: [{id: a, on: vm, run: x}]").state.outcome is Outcome.UNAVAILABLE
        assert time.monotonic() - began < 0.4
