"""Once an agent's code may have run, no step falls back to less isolation."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from pytest_mock import MockerFixture

from pccpipe.errors import Unavailable
from pccpipe.executor.replay import Replay
from pccpipe.outcome import Outcome, Place, Reason
from pccpipe.record.events import (
    CommandStarted,
    Happening,
    MayHaveBegun,
    StepDowngraded,
    StepEnded,
    StepStarted,
    TargetUnavailable,
)
from pccpipe.record.run_events import RunStopped
from pccpipe.target import Command, ContainerSettings, Exit
from pccpipe.targets.dummy import Play
from tests.executor.rehearsal import DummyTargets, Notes, Played, Stage
from tests.executor.test_replay import KilledError, MortalNotes, began
from tests.record.script import events as stamped

GONE = Unavailable(Reason.SSH_AUTH_FAILED, "Permission denied (publickey)")
NO_ENGINE = Unavailable(Reason.ENGINE_STOPPED, "connection refused")

BUILT = """
    containers: {box: {image: "agent:1"}}
    steps:
      - {id: build, on: container, container: box, run: agent}
"""


class FirstPlaceGone:
    """A script that makes the first place of `test` unavailable, and no other place."""

    def __init__(self, stage: Stage) -> None:
        self.targets = stage.targets()
        for place in (Place.VM, Place.CONTAINER):
            target = self.targets[place]
            start = target.start

            def gone(command: Command, start: Callable[..., object] = start) -> object:
                if command.step.startswith("test"):
                    raise GONE
                return start(command)

            target.start = gone  # type: ignore[method-assign,assignment]


def without_engine_and_vm(stage: Stage) -> DummyTargets:
    """Make every container unavailable from the start, and the VM for `test`."""
    stage.script = lambda command: Play(unavailable=NO_ENGINE) if command.container else Play()
    targets = stage.targets()
    targets[Place.VM].start = FirstPlaceGone(stage).targets[Place.VM].start  # type: ignore[method-assign]
    return targets


PATHS = {
    "sequence": BUILT + "      - {id: test, on: vm, run: x, fallback: {on: local}}\n",
    "container to vm": BUILT + "      - {id: test, on: container, container: box, run: x, fallback: {on: vm}}\n",
    "agent to local": BUILT + "      - {id: test, on: container, container: box, run: x, fallback: {on: local}}\n",
    "retry": BUILT + "      - {id: test, on: vm, run: x, fallback: {on: local}, retry: {attempts: 2, backoff: 0s}}\n",
    "repeat": """
    containers: {box: {image: "agent:1"}}
    steps:
      - id: loop
        repeat: {max: 2}
        steps:
          - {id: build, on: container, container: box, run: agent}
          - {id: test, on: vm, run: x, fallback: {on: local}}
""",
    "parallel": """
    containers: {box: {image: "agent:1"}}
    steps:
      - id: both
        max_parallel: 2
        parallel:
          - {id: test, on: vm, run: x, fallback: {on: local}}
          - {id: build, on: container, container: box, run: agent}
""",
    "matrix": BUILT
    + "      - {id: test, matrix: {v: [1, 2]}, on: vm, run: 'x ${{ matrix.v }}', fallback: {on: local}}\n",
}


@pytest.mark.parametrize("name", PATHS)
def test_after_an_agent_may_have_begun_no_step_falls_back(stage: Stage, name: str) -> None:
    played = stage.play(PATHS[name], targets=FirstPlaceGone(stage).targets)
    assert [step for step in played.order if "test" in step] == []
    assert played.notes.of(StepDowngraded) == []
    assert played.state.outcome is Outcome.UNAVAILABLE
    assert played.state.stopped
    tests = [end for end in played.notes.of(StepEnded) if "test" in end.step]
    assert {end.reason for end in tests} == {Reason.AFTER_UNTRUSTED_CODE}
    # The record has the target's own words as well.
    assert all(GONE.words in end.message for end in tests)
    reasons = [no.reason for no in played.notes.of(TargetUnavailable)]
    assert Reason.SSH_AUTH_FAILED in reasons
    assert reasons[-1] is Reason.AFTER_UNTRUSTED_CODE


def test_no_always_step_falls_back_after_an_agent(stage: Stage) -> None:
    text = BUILT + "    always:\n      - {id: test, on: vm, run: x, fallback: {on: local}}\n"
    played = stage.play(text, targets=FirstPlaceGone(stage).targets)
    assert played.order == ["build@container"]
    assert played.end_of("test").reason is Reason.AFTER_UNTRUSTED_CODE
    assert not played.state.stopped


def test_no_upload_falls_back_after_an_agent(stage: Stage, mocker: MockerFixture) -> None:
    mocker.patch("tests.executor.rehearsal.NotedWorkspace.upload", side_effect=GONE)
    played = stage.play(BUILT + "      - {id: sync, upload: workspace, fallback: {on: local}}\n")
    assert played.end_of("sync").reason is Reason.AFTER_UNTRUSTED_CODE
    assert played.notes.of(StepDowngraded) == []


def test_a_step_with_a_proxied_secret_counts_as_an_agent(stage: Stage) -> None:
    stage.secrets = {"KEY": "sk-1234567890"}
    text = """
    secrets: {KEY: {from: env, via: proxy}}
    steps:
      - {id: build, on: vm, run: agent, secrets: [KEY]}
      - {id: test, on: container, container: box, run: x, fallback: {on: local}}
    containers: {box: {image: "agent:1"}}
    """
    played = stage.play(text, targets=FirstPlaceGone(stage).targets)
    assert played.notes.of(MayHaveBegun)[0] == MayHaveBegun("build", 1, Place.VM)
    assert played.order == ["build@vm"]


def test_without_an_engine_every_agent_runs_at_its_fallback(stage: Stage) -> None:
    stage.script = lambda command: Play(unavailable=NO_ENGINE) if command.container else Play()
    played = stage.play("""
    containers: {box: {image: "agent:1"}}
    steps:
      - id: loop
        repeat: {max: 2}
        steps:
          - {id: build, on: container, container: box, run: agent, fallback: {on: local}}
          - {id: test, on: vm, run: x}
          - {id: review, on: container, container: box, run: agent, fallback: {on: local}}
    """)
    assert played.state.outcome is Outcome.SUCCEEDED
    assert played.order == [
        *("loop[1].build@local", "loop[1].test@vm", "loop[1].review@local"),
        *("loop[2].build@local", "loop[2].test@vm", "loop[2].review@local"),
    ]
    assert {event.words for event in played.notes.of(TargetUnavailable)} == {NO_ENGINE.words}


def test_a_step_without_a_sandbox_does_not_fall_back_to_the_machine_of_an_agent(stage: Stage) -> None:
    targets = without_engine_and_vm(stage)
    played = stage.play(
        """
    containers: {box: {image: "agent:1"}}
    steps:
      - {id: build, on: container, container: box, run: agent, fallback: {on: local}}
      - {id: test, on: vm, run: npm test, fallback: {on: local}}
    """,
        targets=targets,
    )
    assert played.order == ["build@local"]
    assert played.end_of("test").reason is Reason.AFTER_UNTRUSTED_CODE


def test_a_container_that_could_not_be_created_exposes_nothing(stage: Stage) -> None:
    targets = without_engine_and_vm(stage)
    played = stage.play(
        """
    containers: {box: {image: "agent:1"}}
    steps:
      - {id: build, on: container, container: box, run: agent, continue_on_error: true}
      - {id: test, on: vm, run: npm test, fallback: {on: local}}
    """,
        targets=targets,
    )
    assert played.notes.of(MayHaveBegun) == [MayHaveBegun("build", 1, Place.CONTAINER)]
    assert played.order == ["test@local"]


def test_a_place_is_probed_once_for_all_legs_of_a_matrix(stage: Stage) -> None:
    stage.script = lambda command: Play(unavailable=GONE)
    targets = stage.targets()
    asked: list[object] = []
    probe = targets[Place.VM].probe

    def counted(container: ContainerSettings | None) -> None:
        asked.append(container)
        probe(container)

    targets[Place.VM].probe = counted  # type: ignore[method-assign]
    legs = "matrix: {v: [1, 2, 3, 4]}, on: vm, run: 'x ${{ matrix.v }}'"
    stage.play(f"steps: [{{id: test, {legs}, fallback: {{on: local}}}}]", targets=targets)
    assert asked == [None]


def test_may_have_begun_is_on_disk_before_an_agent_begins(stage: Stage) -> None:
    seen: list[list[type[Happening]]] = []
    notes = Notes()

    def script(command: Command) -> Play:
        seen.append([type(happening) for happening in notes.happenings])
        return Play()

    stage.script = script
    stage.play(BUILT, notes)
    assert seen[0][-1] is MayHaveBegun


def killed_replay(*happenings: Happening) -> Replay:
    return Replay(stamped([began(), *happenings], time.time(), 0.001))


def test_a_kill_between_may_have_begun_and_the_start_exposes_the_run(stage: Stage) -> None:
    text = BUILT.replace("run: agent}", "run: agent, continue_on_error: true}") + (
        "      - {id: test, on: vm, run: x, fallback: {on: local}}\n"
    )
    replay = killed_replay(StepStarted("build", "run", Place.CONTAINER), MayHaveBegun("build", 1, Place.CONTAINER))
    played = stage.play(text, Notes(), FirstPlaceGone(stage).targets, replay)
    assert "test@local" not in played.order
    assert played.end_of("test").reason is Reason.AFTER_UNTRUSTED_CODE


def test_what_may_have_begun_before_a_kill_is_lost_if_its_place_stays_away(stage: Stage, mocker: MockerFixture) -> None:
    mocker.patch("pccpipe.executor.waiting.FIRST_PAUSE", 0.01)
    stage.lost_after = 0.2
    stage.script = lambda command: Play(unavailable=Unavailable(Reason.SSH_REFUSED, "no")) if command.step else Play()
    targets = stage.targets()
    targets[Place.VM].open = targets[Place.VM].find = refuse  # type: ignore[method-assign,assignment]
    replay = killed_replay(StepStarted("s", "run", Place.VM))
    played = stage.play("steps: [{id: s, on: vm, run: x, fallback: {on: local}}]", Notes(), targets, replay)
    assert played.end_of("s").outcome is Outcome.LOST
    assert played.order == []


def refuse(*_: object) -> None:
    raise Unavailable(Reason.SSH_REFUSED, "Connection refused")


def test_a_person_may_accept_the_fallback_of_one_step(stage: Stage) -> None:
    stage.accepted = frozenset({"test"})
    text = PATHS["sequence"] + "      - {id: test-more, on: vm, run: x, fallback: {on: local}}\n"
    played = stage.play(text, targets=FirstPlaceGone(stage).targets)
    assert played.order == ["build@container", "test@local"]
    assert played.end_of("test-more").reason is Reason.AFTER_UNTRUSTED_CODE
    assert "prepare home or last known" in played.workspace.calls


def test_an_accepted_fallback_does_not_override_isolation_required(stage: Stage) -> None:
    stage.accepted = frozenset({"test"})
    text = BUILT + "      - {id: test, on: vm, run: x, fallback: {on: local}, isolation: required}\n"
    played = stage.play(text, targets=FirstPlaceGone(stage).targets)
    assert played.order == ["build@container"]


def stopped_then_resumed(stage: Stage, text: str) -> tuple[Played, Played]:
    """Stop a run because the place of `test` is gone; resume it when the place is back."""
    notes = Notes()
    first = stage.play(text, notes, FirstPlaceGone(stage).targets)
    assert first.state.stopped
    notes.append(RunStopped(Outcome.UNAVAILABLE, first.state.message))
    rest = Notes()
    targets = stage.targets()
    targets[Place.CONTAINER].commands += first.targets[Place.CONTAINER].commands
    return first, stage.play(text, rest, targets, killed_replay(*notes.happenings))


@pytest.mark.parametrize("name", PATHS)
def test_a_resumed_run_continues_where_it_stopped(stage: Stage, name: str) -> None:
    _, second = stopped_then_resumed(stage, PATHS[name])
    assert second.state.outcome is Outcome.SUCCEEDED
    assert any("test" in step for step in second.order)
    assert all(not step.endswith("@local") for step in second.order)
    # The agent's finished work is not repeated.
    assert [step for step in second.order if step in {"build@container", "loop[1].build@container"}] == []


def test_a_resumed_run_stops_again_if_the_place_is_still_gone(stage: Stage) -> None:
    notes = Notes()
    first = stage.play(PATHS["sequence"], notes, FirstPlaceGone(stage).targets)
    notes.append(RunStopped(Outcome.UNAVAILABLE, first.state.message))
    again = stage.play(PATHS["sequence"], Notes(), FirstPlaceGone(stage).targets, killed_replay(*notes.happenings))
    assert again.state.stopped
    assert again.order == []


# In a parallel group, the order of two threads decides whether the agent had begun.
@pytest.mark.parametrize("name", sorted(set(PATHS) - {"parallel"}))
def test_a_run_killed_at_any_event_stays_exposed(stage: Stage, name: str) -> None:
    whole = stage.play(PATHS[name], targets=FirstPlaceGone(stage).targets)
    for life in range(len(whole.notes.happenings)):
        notes, targets = MortalNotes(life), FirstPlaceGone(stage).targets
        with pytest.raises(KilledError):
            stage.play(PATHS[name], notes, targets)
        resumed = stage.play(PATHS[name], Notes(), targets, killed_replay(*notes.happenings))
        assert resumed.state.outcome is Outcome.UNAVAILABLE, f"killed after {life} events"
        assert targets[Place.LOCAL].commands == [], f"killed after {life} events"


def test_an_agent_of_an_earlier_run_on_the_vm_needs_consent_too(stage: Stage) -> None:
    text = "steps: [{id: test, on: vm, run: x, fallback: {on: local}}]"
    stage.vm_history = "code of an agent ran on the VM"
    played = stage.play(text, targets=FirstPlaceGone(stage).targets)
    assert played.end_of("test").reason is Reason.VM_NOT_TRUSTED
    assert played.state.stopped
    stage.accepted = frozenset({"test"})
    assert stage.play(text, targets=FirstPlaceGone(stage).targets).order == ["test@local"]


def test_the_record_remembers_a_vm_on_which_an_agents_code_may_run(stage: Stage) -> None:
    tested = BUILT + "      - {id: check, on: vm, run: x}\n"
    assert stage.play(tested).targets.remembered == 1
    assert stage.play("steps: [{id: check, on: vm, run: x}]").targets.remembered == 0
    stage.run_as = "pccrun"
    assert stage.play(tested).targets.remembered == 0


RESULTS = """
    containers: {box: {image: "agent:1"}}
    steps:
      - {id: first, on: container, container: box, run: x, result: {path: first.json}}
      - {id: check, on: vm, run: x}
      - {id: review, on: container, container: box, run: x, result: {path: review.json}}
"""


def test_a_result_after_a_command_on_the_vm_is_unattested(stage: Stage) -> None:
    stage.script = lambda command: Play(files={"first.json": b"{}", "review.json": b"{}"})
    played = stage.play(RESULTS)
    assert [end.unattested for end in played.notes.of(StepEnded)] == [False, False, True]
    stage.run_as = "pccrun"
    assert [end.unattested for end in stage.play(RESULTS).notes.of(StepEnded)] == [False, False, False]


def test_a_command_of_the_login_makes_results_unattested_also_with_an_account(stage: Stage) -> None:
    stage.run_as = "pccrun"
    stage.script = lambda command: Play(files={"first.json": b"{}", "review.json": b"{}"})
    text = RESULTS.replace("on: vm, run: x", "on: vm, account: login, run: x")
    played = stage.play(text)
    assert [end.unattested for end in played.notes.of(StepEnded)] == [False, False, True]
    assert [began.as_login for began in played.notes.of(CommandStarted)] == [False, True, False]
    assert played.targets.remembered == 1
    # A resumed run reads it from the record.
    notes = MortalNotes(8)
    with pytest.raises(KilledError):
        stage.play(text, notes)
    rest = stage.play(text, Notes(), stage.targets(), killed_replay(*notes.happenings))
    assert rest.end_of("review").unattested


@pytest.mark.parametrize(
    "step",
    [
        "{id: last, on: container, container: box, run: x, isolation: required, result: {path: last.json}}",
        '{id: last, on: container, container: box, run: "x ${{ steps.review.result.a }}", isolation: required}',
        "{id: last, on: container, container: box, run: x, if: steps.review.result.a != 1, isolation: required}",
        "{id: last, on: local, run: x, timeout: '${{ steps.review.result.a }}', isolation: required}",
        "{id: all, if: steps.review.result.a == 2, parallel: [{id: last, on: local, run: x, isolation: required}]}",
        "{id: copy, on: local, run: 'x ${{ steps.review.result.a }}', result: {path: copy.json}}\n"
        "      - {id: last, on: local, run: 'x ${{ steps.copy.last_result.a }}', isolation: required}",
        "{id: loop, repeat: {max: 1, until: steps.review.result.a == 2}, steps: [{id: in, on: local, run: x}]}\n"
        "      - {id: last, on: local, run: x, isolation: required}",
        "{id: last, on: local, run: x, isolation: required, services: {db: {image: '${{ steps.review.result.a }}'}}}",
        "{id: all, services: {db: {image: i, env: {A: '${{ steps.review.result.a }}'}}}, steps: [\n"
        "          {id: last, on: local, run: x, isolation: required}]}",
    ],
)
def test_isolation_required_refuses_steps_that_have_or_read_unattested_results(stage: Stage, step: str) -> None:
    files = dict.fromkeys(("first.json", "review.json", "last.json", "copy.json"), b'{"a": 2}')
    stage.script = lambda command: Play(files=files)
    text = RESULTS + f"      - {step}\n"
    played = stage.play(text)
    (last,) = [end for end in played.notes.of(StepEnded) if end.step in {"last", "all.last"}]
    assert last.reason is Reason.UNATTESTED
    stage.run_as = "pccrun"
    assert stage.play(text).state.outcome is Outcome.SUCCEEDED


def test_isolation_required_refuses_an_agent_whose_prompt_reads_an_unattested_result(stage: Stage) -> None:
    stage.secrets = {"KEY": "sk-made-up-0123456789"}
    stage.script = lambda command: Play(files={"r.json": b'"all is well"'})
    text = """
        secrets: {KEY: {from: env, via: proxy}}
        agents: {codex: {use: codex, model: m, secret: KEY}}
        containers: {box: {image: "agent:1"}}
        steps:
          - {id: check, on: vm, run: x, result: {path: r.json}}
          - id: judge
            container: box
            agent: codex
            prompt: {text: "Judge ${{ steps.check.result }}"}
            isolation: required
    """
    ended = stage.play(text).end_of("judge")
    assert (ended.reason, "could forge the result of check" in ended.message) == (Reason.UNATTESTED, True)


def test_a_failed_agent_is_not_unavailable_and_its_run_ends(stage: Stage) -> None:
    stage.script = lambda command: Play(exit=Exit(1))
    played = stage.play(BUILT)
    assert not played.state.stopped
    assert played.state.outcome is Outcome.FAILED
    assert len(played.notes.of(CommandStarted)) == 1
