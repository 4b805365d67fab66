"""A run stays exposed after retries of a group, kills and stops, and in older records."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

import pytest
from msgspec.structs import replace
from pytest_mock import MockerFixture

from pccpipe.errors import Unavailable
from pccpipe.executor.replay import Replay
from pccpipe.outcome import Outcome, Place, Reason
from pccpipe.record.events import (
    CommandEnded,
    CommandStarted,
    Happening,
    MayHaveBegun,
    StepDowngraded,
    StepEnded,
    StepRetrying,
    StepStarted,
    TargetUnavailable,
)
from pccpipe.record.run_events import RunResumed, RunStopped
from pccpipe.record.state import RunState
from pccpipe.target import Command, Isolation
from pccpipe.targets.dummy import DummyTarget, Play
from tests.executor.rehearsal import DummyTargets, Notes, Stage
from tests.executor.test_replay import KilledError, MortalNotes, began
from tests.record.script import events as stamped

GONE = Unavailable(Reason.SSH_AUTH_FAILED, "Permission denied (publickey)")
BOX = """
    containers: {box: {image: "agent:1"}}"""
RESUMED = RunResumed("0", "h", 2)


def past_of(*happenings: Happening, **of_run: object) -> Replay:
    return Replay(stamped([replace(began(), **of_run), *happenings], time.time(), 0.001))


def state_of(*happenings: Happening) -> RunState:
    state = RunState()
    for event in stamped([began(), *happenings], time.time(), 0.001):
        state.apply(event)
    return state


def shut(target: DummyTarget, error: Unavailable = GONE, when: Callable[[], bool] = lambda: True) -> None:
    """A target that cannot even be opened."""
    opened = target.open

    def refuse() -> None:
        if when():
            raise error
        opened()

    target.open = refuse  # type: ignore[method-assign]


def test_a_retried_group_keeps_the_run_exposed(stage: Stage) -> None:
    targets = stage.targets()
    shut(targets[Place.CONTAINER], when=lambda: bool(targets[Place.CONTAINER].commands))
    played = stage.play(
        BOX
        + """
    steps:
      - id: loop
        repeat: {max: 1}
        retry: {attempts: 2, backoff: 0s, on: [failed, unavailable]}
        steps:
          - {id: build, on: container, container: box, run: agent, fallback: {on: local}}
          - {id: fail, run: x, on: local, result: {path: r.json}}
    """,
        targets=targets,
    )
    assert [step for step in played.order if step.startswith("loop[1].build")] == ["loop[1].build@container"]
    assert played.notes.of(StepDowngraded) == []
    assert state_of(*played.notes.happenings).exposed
    assert past_of(*played.notes.happenings).exposure.is_exposed


def test_a_place_unavailable_on_resume_does_not_prove_that_no_agent_began(stage: Stage, mocker: MockerFixture) -> None:
    mocker.patch("pccpipe.executor.waiting.FIRST_PAUSE", 0.01)
    stage.lost_after = 0.1
    text = BOX + "\n    steps: [{id: build, on: container, container: box, run: agent, fallback: {on: local}}]"
    targets = stage.targets()
    shut(targets[Place.CONTAINER])
    replay = past_of(StepStarted("build", "run", Place.CONTAINER), MayHaveBegun("build", 1, Place.CONTAINER))
    played = stage.play(text, Notes(), targets, replay)
    assert played.order == []
    assert played.end_of("build").outcome is Outcome.LOST
    assert replay.exposure.is_exposed


def test_a_command_without_may_have_begun_has_not_begun(stage: Stage) -> None:
    """A run that never had an engine falls back at once, also if it was killed before it recorded that."""
    text = BOX + "\n    steps: [{id: build, on: container, container: box, run: agent, fallback: {on: local}}]"
    targets = stage.targets()
    shut(targets[Place.CONTAINER], Unavailable(Reason.ENGINE_MISSING, "no socket"))
    replay = past_of(StepStarted("build", "run", Place.CONTAINER), project_identity="known")
    assert stage.play(text, Notes(), targets, replay).order == ["build@local"]


def test_in_an_older_record_the_commands_say_what_began(stage: Stage) -> None:
    text = (
        BOX
        + """
    steps:
      - {id: build, on: container, container: box, run: agent}
      - {id: test, on: vm, run: x, fallback: {on: local}}
    """
    )
    had = Isolation(Place.CONTAINER, "vm", "1000:1000", "c")
    replay = past_of(
        StepStarted("build", "run", Place.CONTAINER),
        CommandStarted("build", 1, "build-1", had, "logs/a", "logs/b"),
        CommandEnded("build", 1, Outcome.SUCCEEDED, 0),
        StepEnded("build", Outcome.SUCCEEDED, 1.0, 0),
    )
    targets = stage.targets()
    shut(targets[Place.VM])
    played = stage.play(text, Notes(), targets, replay)
    assert played.order == []
    assert played.end_of("test").reason is Reason.AFTER_UNTRUSTED_CODE


def test_an_accepted_fallback_of_an_agent_allows_no_other(stage: Stage) -> None:
    targets = stage.targets()
    shut(targets[Place.CONTAINER], when=lambda: bool(targets[Place.CONTAINER].commands))
    stage.accepted = frozenset({"build"})
    text = (
        BOX
        + """
    steps:
      - {id: first, on: container, container: box, run: agent}
      - {id: build, on: container, container: box, run: agent, fallback: {on: local}}
      - {id: review, on: container, container: box, run: agent, fallback: {on: local}}
    """
    )
    played = stage.play(text, targets=targets)
    assert played.order == ["first@container", "build@local"]
    assert played.end_of("review").reason is Reason.AFTER_UNTRUSTED_CODE
    # Nor does it after a resume.
    rest = stage.play(text, Notes(), targets, past_of(*played.notes.happenings, RunStopped(Outcome.UNAVAILABLE, "")))
    assert rest.order == []


def test_a_group_that_the_run_ignored_is_not_retried_after_a_stop(stage: Stage) -> None:
    gone = True
    targets = stage.targets()
    shut(targets[Place.VM], when=lambda: gone)
    text = (
        BOX
        + """
    steps:
      - {id: build, on: container, container: box, run: agent}
      - id: lint
        continue_on_error: true
        repeat: {max: 1}
        steps: [{id: look, on: vm, run: x}]
      - {id: test, on: vm, run: x}
    """
    )
    first = stage.play(text, targets=targets)
    assert first.state.stopped
    events = [*first.notes.happenings, RunStopped(Outcome.UNAVAILABLE, "")]
    gone = False
    second = stage.play(text, Notes(), targets, past_of(*events))
    assert second.order == ["test@vm"]
    outcomes = {path: step.outcome for path, step in state_of(*events, RESUMED).steps.items()}
    assert outcomes["lint[1].look"] is outcomes["lint"] is Outcome.UNAVAILABLE
    assert outcomes["test"] is None


def test_consent_counts_also_after_a_kill_right_after_the_refusal(stage: Stage) -> None:
    targets = stage.targets()
    shut(targets[Place.VM])
    text = (
        BOX
        + """
    steps:
      - {id: build, on: container, container: box, run: agent}
      - {id: test, on: vm, run: x, fallback: {on: local}}
    """
    )
    first = stage.play(text, targets=targets)
    happened = first.notes.happenings
    refused = next(n for n, event in enumerate(happened) if getattr(event, "reason", "") == Reason.AFTER_UNTRUSTED_CODE)
    for life in (refused + 1, refused + 2):
        stage.accepted = frozenset({"test"})
        rest, targets = Notes(), stage.targets()
        shut(targets[Place.VM])
        second = stage.play(text, rest, targets, past_of(*happened[:life]))
        assert second.order == ["test@local"], f"killed after {life} events"
        # If that process is killed, the next one follows the command that began.
        began_there = next(n for n, event in enumerate(rest.happenings) if isinstance(event, CommandStarted))
        events = [*happened[:life], RESUMED, *rest.happenings[: began_there + 1]]
        third = stage.play(text, Notes(), targets, past_of(*events))
        assert third.order == []
        assert third.state.outcome is Outcome.SUCCEEDED
        assert len(targets[Place.LOCAL].commands) == 1


def test_a_command_of_a_resumed_run_that_was_killed_is_in_doubt_too(stage: Stage, mocker: MockerFixture) -> None:
    mocker.patch("pccpipe.executor.waiting.FIRST_PAUSE", 0.01)
    stage.lost_after = 0.1
    text = BOX + "\n    steps: [{id: build, on: container, container: box, run: agent, fallback: {on: local}}]"
    targets = stage.targets()
    shut(targets[Place.CONTAINER])
    replay = past_of(
        StepStarted("build", "run", Place.CONTAINER),
        TargetUnavailable("build", 1, Place.CONTAINER, Reason.ENGINE_STOPPED, ""),
        StepEnded("build", Outcome.UNAVAILABLE, 1.0, reason=Reason.ENGINE_STOPPED),
        RunStopped(Outcome.UNAVAILABLE, ""),
        RESUMED,
        MayHaveBegun("build", 1, Place.CONTAINER),
    )
    assert stage.play(text, Notes(), targets, replay).order == []


def test_a_step_whose_leftovers_stopped_the_run_runs_again_on_resume(stage: Stage) -> None:
    stage.run_as = "pccrun"
    text = "steps: [{id: test, on: vm, run: x, fallback: {on: local}}, {id: after, on: vm, run: x}]"
    left = Unavailable(Reason.PROCESSES_LEFT, "1 of them")
    had = Isolation(Place.VM, "vm", "1000")
    events: tuple[Happening, ...] = (
        StepStarted("test", "run", Place.VM),
        CommandStarted("test", 1, "test-1", had, "logs/a", "logs/b"),
        CommandEnded("test", 1, Outcome.UNAVAILABLE, message=left.words, reason=left.reason),
    )
    # After a kill at this point it stops too.
    assert stage.play(text, Notes(), stage.targets(), past_of(*events)).state.stopped
    ended = StepEnded("test", Outcome.UNAVAILABLE, 1.0, reason=left.reason)
    rest, targets = Notes(), stage.targets()
    resumed = stage.play(text, rest, targets, past_of(*events, ended, RunStopped(Outcome.UNAVAILABLE, "")))
    assert resumed.order == ["test@vm", "after@vm"]
    assert [command.id for command in targets[Place.VM].commands] == ["test-2", "after-1"]
    # After a kill at the end of the second command it replays both.
    events = (*events, ended, RunStopped(Outcome.UNAVAILABLE, ""), RESUMED, *rest.happenings[:2])
    assert stage.play(text, Notes(), targets, past_of(*events)).order == ["after@vm"]


def test_a_run_that_stopped_before_its_fallback_began_is_not_downgraded(stage: Stage) -> None:
    text = BOX + "\n    steps: [{id: build, on: container, container: box, run: agent, fallback: {on: vm}}]"
    gone = True
    targets = stage.targets()
    shut(targets[Place.CONTAINER], Unavailable(Reason.IMAGE_MISSING, "no such image"), when=lambda: gone)
    shut(targets[Place.VM], Unavailable(Reason.SSH_REFUSED, "refused"), when=lambda: gone)
    targets.had_vm, stage.lost_after = True, 0.1
    first = stage.play(text, targets=targets)
    assert first.state.stopped
    gone = False
    events = [*first.notes.happenings, RunStopped(Outcome.UNAVAILABLE, "")]
    second = stage.play(text, Notes(), targets, past_of(*events))
    assert second.order == ["build@container"]
    state = state_of(*events, RESUMED, *second.notes.happenings)
    assert (state.downgraded, state.downgrades) == (False, [])


def test_a_command_on_the_vm_beside_an_agent_makes_the_record_remember_it(stage: Stage) -> None:
    stage.script = lambda command: Play(lasts=0.2 if command.step == "test" else 0.0)
    played = stage.play(
        BOX
        + """
    steps:
      - id: both
        max_parallel: 2
        parallel:
          - {id: test, on: vm, run: x}
          - {id: build, on: container, container: box, run: agent}
    """
    )
    assert played.targets.remembered == 1


def test_a_step_refused_as_unattested_ends_the_run(stage: Stage) -> None:
    """A resume would refuse the step again, so the run ends."""
    stage.script = lambda command: Play(files={"review.json": b"{}"})
    played = stage.play(
        BOX
        + """
    steps:
      - {id: build, on: container, container: box, run: agent}
      - {id: test, on: vm, run: x}
      - {id: review, on: container, container: box, run: agent, isolation: required, result: {path: review.json}}
    always: [{id: clean, remove: workspace}]
    """
    )
    assert played.end_of("review").reason is Reason.UNATTESTED
    assert not played.state.stopped
    assert played.workspace.calls[-1] == "remove"


@pytest.mark.parametrize("is_back", [True, False])
def test_a_stopped_run_that_is_cancelled_ends_as_cancelled(stage: Stage, is_back: bool) -> None:
    gone = True
    targets = stage.targets()
    shut(targets[Place.VM], when=lambda: gone)
    text = (
        BOX
        + """
    steps:
      - {id: build, on: container, container: box, run: agent}
      - {id: test, on: vm, run: x, fallback: {on: local}}
      - {id: after, on: vm, run: x}
    always: [{id: tidy, on: local, run: x}, {id: clean, remove: workspace}]
    """
    )
    first = stage.play(text, targets=targets)
    gone = not is_back
    stage.cancel.request("cancel")
    events = [*first.notes.happenings, RunStopped(Outcome.UNAVAILABLE, "")]
    second = stage.play(text, Notes(), targets, past_of(*events))
    assert second.state.outcome is Outcome.CANCELLED
    assert second.order == ["tidy@local"]
    assert second.workspace.calls[-1] == "remove"


def test_a_recorded_retry_is_replayed_although_its_place_counts_as_away_now(stage: Stage) -> None:
    text = """
    steps:
      - id: both
        max_parallel: 2
        parallel:
          - {id: other, on: vm, run: x}
          - {id: test, on: vm, run: x, fallback: {on: local}, retry: {attempts: 2, on: [unavailable]}}
    """
    no = TargetUnavailable("both.test", 1, Place.VM, Reason.SSH_REFUSED, "no")
    targets = stage.targets()
    targets[Place.LOCAL].commands.append(Command("both.test-3", "test", 3, "x"))
    replay = past_of(
        StepStarted("both", "parallel"),
        StepStarted("both.test", "run", Place.VM),
        no,
        StepRetrying("both.test", 2, 2, Outcome.UNAVAILABLE, 0.0),
        replace(no, attempt=2),
        StepDowngraded("both.test", Place.VM, Place.LOCAL, Reason.SSH_REFUSED, "no"),
        CommandStarted(
            "both.test", 3, "both.test-3", Isolation(Place.LOCAL, "here", "u"), "l/a", "l/b", {"id": "both.test-3"}
        ),
        StepStarted("both.other", "run", Place.VM),
        CommandStarted(
            "both.other", 1, "both.other-1", Isolation(Place.VM, "vm", "u"), "l/c", "l/d", {"id": "both.other-1"}
        ),
    )
    targets[Place.VM].commands.append(Command("both.other-1", "other", 1, "x"))
    played = stage.play(text, Notes(), targets, replay)
    assert played.order == []
    assert played.state.outcome is Outcome.SUCCEEDED


STOPPING = {
    "sequence": """
    steps:
      - {id: build, on: container, container: box, run: agent}
      - {id: test, on: vm, run: x, fallback: {on: local}}
      - {id: after, on: vm, run: x}
    """,
    "retries in rounds": """
    steps:
      - id: loop
        repeat: {max: 2}
        retry: {attempts: 2, backoff: 0s, on: [failed, unavailable]}
        steps:
          - {id: build, on: container, container: box, run: agent}
          - {id: lint, on: vm, run: x, continue_on_error: true}
          - {id: test, on: vm, run: x, fallback: {on: local}, retry: {attempts: 2, backoff: 0s, on: [unavailable]}}
      - {id: after, on: vm, run: x}
    """,
    "groups in groups": """
    steps:
      - id: loop
        repeat: {max: 1}
        steps:
          - {id: build, on: container, container: box, run: agent}
          - id: both
            max_parallel: 1
            parallel:
              - {id: test, on: vm, run: x, fallback: {on: local}}
              - {id: unit, matrix: {v: [1, 2]}, on: vm, run: "x ${{ matrix.v }}", fallback: {on: local}}
              - {id: review, on: container, container: box, run: agent}
      - {id: after, on: vm, run: x}
    """,
}


@pytest.mark.parametrize("name", STOPPING)
def test_a_run_killed_at_any_event_around_two_stops_still_ends_well(stage: Stage, name: str) -> None:
    """The run stops as its place goes away; a resume stops again or is killed; at the next one the place is back."""
    stage.lost_after = 0.1
    text = BOX + STOPPING[name]
    whole = stage.play(text)
    expected = sorted(step for step in whole.order if "lint" not in step)
    gone_whole = _play_gone(stage, text, 1000)
    for life in range(1, len(gone_whole[0]) + 1):
        happened, _ = _play_gone(stage, text, life)
        for again in (0, 1, 2, 3, 1000):
            events, targets = list(happened), _targets_of(stage, happened)
            notes = MortalNotes(again)
            _shut_vm(targets)
            with contextlib.suppress(KilledError):
                played = stage.play(text, notes, targets, past_of(*events))
                assert played.state.stopped, f"{life}, {again}"
                notes.happenings.append(RunStopped(Outcome.UNAVAILABLE, ""))
            events += [RESUMED, *notes.happenings]
            targets = _targets_of(stage, events)
            last = Notes()
            third = stage.play(text, last, targets, past_of(*events))
            if third.state.stopped:
                events += [RESUMED, *last.happenings, RunStopped(Outcome.UNAVAILABLE, "")]
                third = stage.play(text, Notes(), targets, past_of(*events))
            assert third.state.outcome is Outcome.SUCCEEDED, f"{life}, {again}: {third.ending}"
            assert targets[Place.LOCAL].commands == [], f"{life}, {again}"
            agents = [command.id for command in targets[Place.CONTAINER].commands]
            assert len(agents) == len(set(agents)), f"{life}, {again}"
            if name != "retries in rounds":
                assert len(agents) == sum("container" in step for step in expected), f"{life}, {again}: {agents}"


def _shut_vm(targets: DummyTargets) -> None:
    shut(targets[Place.VM], when=lambda: bool(targets[Place.CONTAINER].commands))


def _play_gone(stage: Stage, text: str, life: int) -> tuple[list[Happening], DummyTargets]:
    """Return the events of a run whose VM goes away after its first agent began, and which is killed or stops."""
    notes, targets = MortalNotes(life), stage.targets()
    _shut_vm(targets)
    with contextlib.suppress(KilledError):
        assert stage.play(text, notes, targets).state.stopped
        notes.happenings.append(RunStopped(Outcome.UNAVAILABLE, ""))
    return notes.happenings, targets


def _targets_of(stage: Stage, happened: Sequence[Happening]) -> DummyTargets:
    """Return targets that know the commands which the record says began."""
    targets = stage.targets()
    for event in happened:
        if isinstance(event, CommandStarted):
            step = event.step.rpartition(".")[2]
            targets[event.had.place].commands.append(Command(event.command, step, 1, "x", container=event.settings))
    return targets
