"""Services live beside their step or group: begun before it, ended after it in every case."""

from __future__ import annotations

import time

import pytest

from pccpipe.errors import Unavailable
from pccpipe.executor.replay import Replay
from pccpipe.outcome import Code, Outcome, Place, Reason
from pccpipe.record.events import (
    SERVICES,
    CommandStarted,
    Happening,
    MayHaveBegun,
    ServiceEnded,
    ServiceReady,
    ServiceStarted,
    StepEnded,
    TargetUnavailable,
    Warned,
)
from pccpipe.service import NotReady, RunningService, ServiceCommand
from pccpipe.target import Exit, Token
from pccpipe.targets.dummy import Play
from pccpipe.targets.dummy_services import DummyServices, ServicePlay
from tests.executor.rehearsal import Notes, Played, Stage
from tests.executor.test_replay import KilledError, MortalNotes, began
from tests.record.script import events as stamped

GROUP = """
    containers: {box: {image: alpine}}
    steps:
      - id: tests
        repeat: {max: 1}
        services:
          db: {image: "postgres:16", ports: [5432]}
          cache: {image: redis}
        steps:
          - {id: one, on: vm, run: "use ${{ services.db.host }} ${{ services.db.port }}"}
          - {id: two, container: box, run: "use ${{ services.db.ports['5432'] }} ${{ services.cache.host }}"}
      - {id: after, run: x}
"""


def words(played: Played) -> list[str]:
    """Return the order of what happened, in words."""
    said: list[str] = []
    for what in played.notes.happenings:
        match what:
            case ServiceStarted(service=name):
                said.append(f"{name} begins")
            case ServiceReady(service=name):
                said.append(f"{name} is ready")
            case ServiceEnded(service=name, with_owner=is_so):
                said.append(f"{name} ended{' with its steps' if is_so else ''}")
            case CommandStarted(step=step):
                said.append(f"{step} runs")
            case StepEnded(step=step, outcome=outcome):
                said.append(f"{step} {outcome}")
            case _:
                pass
    return said


def services(played: Played) -> DummyServices:
    return played.targets.services


def test_services_begin_before_their_group_and_end_after_it(stage: Stage) -> None:
    played = stage.play(GROUP)
    assert words(played) == [
        *("db begins", "cache begins", "db is ready", "cache is ready"),
        *("tests[1].one runs", "tests[1].one succeeded", "tests[1].two runs", "tests[1].two succeeded"),
        *("cache ended with its steps", "db ended with its steps", "tests succeeded", "after runs", "after succeeded"),
    ]
    assert not services(played).left
    scripts = {command.step: command for target in played.targets.values() for command in target.commands}
    assert scripts["one"].script == "use 127.0.0.1 40000"
    assert scripts["two"].script == "use 5432 cache"
    assert (scripts["one"].network, scripts["two"].network) == (None, "network-of-tests#1")


def test_a_step_whose_condition_is_false_begins_none(stage: Stage) -> None:
    played = stage.play("steps: [{id: a, if: 'false', run: x, services: {db: {image: x}}}]")
    assert not services(played).started


def test_each_leg_of_a_matrix_has_its_own(stage: Stage) -> None:
    played = stage.play(
        """
        steps:
          - id: legs
            matrix: {version: [15, 16]}
            services: {db: {image: "postgres:${{ matrix.version }}"}}
            run: test
        """
    )
    assert [(owner.path, one.image) for owner, one in services(played).started] == [
        ("legs[version=15]", "postgres:15"),
        ("legs[version=16]", "postgres:16"),
    ]
    assert not services(played).left


@pytest.mark.parametrize("how", ["fails", "cancelled", "timed out"])
def test_they_end_however_the_step_ends(stage: Stage, how: str) -> None:
    stage.script = lambda command: Play(lasts=0 if how == "fails" else 60, exit=Exit(1))

    def cancel(what: Happening) -> None:
        if how == "cancelled" and isinstance(what, CommandStarted):
            stage.cancel.request()

    stage.on_event = cancel
    limit = "timeout: 200ms, " if how == "timed out" else ""
    played = stage.play(f"steps: [{{id: a, {limit}run: x, services: {{db: {{image: x}}}}}}]")
    assert not services(played).left
    assert words(played)[-2:] == ["db ended with its steps", f"a {played.state.outcome}"]
    assert played.state.outcome is not Outcome.SUCCEEDED


def test_a_service_that_is_not_ready_fails_its_owner_before_it_begins(stage: Stage) -> None:
    stage.services = lambda service: ServicePlay(not_ready=NotReady("it ended with exit code 1", "no password set\n"))
    played = stage.play("steps: [{id: a, run: x, services: {db: {image: x}}}]")
    assert words(played) == ["db begins", "db ended with its steps", "a failed"]
    assert played.end_of("a").code is Code.NOT_READY
    assert played.end_of("a").message == "service db is not ready: it ended with exit code 1; it says: no password set"


def test_without_an_engine_their_owner_is_unavailable_and_falls_back_nowhere(stage: Stage) -> None:
    stage.services = lambda service: ServicePlay(unavailable=Unavailable(Reason.ENGINE_MISSING, "no socket"))
    played = stage.play("steps: [{id: a, on: vm, run: x, services: {db: {image: x}}, fallback: {on: local}}]")
    assert (played.end_of("a").outcome, played.end_of("a").reason) == (Outcome.UNAVAILABLE, Reason.ENGINE_MISSING)
    assert not played.order
    (refused,) = played.notes.of(TargetUnavailable)
    assert refused.words == "its services: no socket"


def test_a_service_that_fails_ends_its_group_after_the_running_step(stage: Stage) -> None:
    stage.services = lambda service: ServicePlay(play=Play(lasts=0.2 if service.name == "db" else 60, exit=Exit(3)))
    stage.script = lambda command: Play(lasts=0.5)
    played = stage.play(GROUP)
    assert [end for end in played.ends if end[0] != "after"] == [("tests[1].one", "succeeded"), ("tests", "failed")]
    assert played.end_of("tests").code is Code.SERVICE_ENDED
    assert "service db ended: exit code 3" in played.end_of("tests").message
    assert not services(played).left


def play_killed(stage: Stage, text: str, life: int) -> Played:
    """Play a run that is killed after this many events, and resume it."""
    notes, targets = MortalNotes(life), stage.targets()
    with pytest.raises(KilledError):
        stage.play(text, notes, targets)
    rest = Notes()
    rest.happenings = list(notes.happenings)
    return stage.play(text, rest, targets, Replay(stamped([began(), *notes.happenings], time.time(), 0.001)))


# Threads of the killed process that follow services die at its last event.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_run_killed_at_any_event_is_resumed_with_the_same_services(stage: Stage) -> None:
    whole = stage.play(GROUP)
    for life in range(len(whole.notes.happenings)):
        resumed = play_killed(stage, GROUP, life)
        assert resumed.ending == whole.ending, f"killed after {life} events"
        assert not services(resumed).left, f"killed after {life} events"
        assert [end for end in resumed.ends if end[1] != "succeeded"] == [], f"killed after {life} events"


def test_a_service_that_a_resumed_run_does_not_find_lets_no_more_steps_begin(stage: Stage) -> None:
    notes, targets = Notes(), stage.targets()
    stage.on_event = None
    whole = stage.play(GROUP, notes, targets)
    first = next(n for n, what in enumerate(notes.happenings) if isinstance(what, StepEnded))
    rest = Notes()
    resumed = stage.play(
        GROUP, rest, stage.targets(), Replay(stamped([began(), *notes.happenings[: first + 1]], time.time(), 0.001))
    )
    assert whole.state.outcome is Outcome.SUCCEEDED
    assert (resumed.state.outcome, resumed.state.code) == (Outcome.FAILED, Code.SERVICE_ENDED)
    assert "service db is gone" in resumed.state.message
    assert not rest.of(CommandStarted)


def test_services_of_a_run_that_waited_begin_again_and_a_warning_says_so(stage: Stage) -> None:
    notes, targets = Notes(), stage.targets()
    stage.play(GROUP, notes, targets)
    last = max(n for n, what in enumerate(notes.happenings) if isinstance(what, ServiceEnded))
    ended = [what for what in notes.happenings[: last + 1] if "two" not in getattr(what, "step", "")]
    rest = Notes()
    resumed = stage.play(GROUP, rest, targets, Replay(stamped([began(), *ended], time.time(), 0.001)))
    assert resumed.state.outcome is Outcome.SUCCEEDED
    assert [what.service for what in rest.of(ServiceStarted)] == ["db", "cache"]
    assert any("without their data" in what.message for what in rest.of(Warned))
    assert not targets.services.left


def test_a_container_step_beside_the_services_of_two_groups_says_what_to_do(stage: Stage) -> None:
    inner = "{id: two, container: box, services: {more: {image: x}}, run:"
    played = stage.play(GROUP.replace("{id: two, container: box, run:", inner))
    assert "put them all on the outer group" in played.end_of("tests[1].two").message
    assert not services(played).left


IN_GROUP = """
    steps:
      - id: g
        services: {db: {image: x}}
        steps: [{id: a, run: x, on: vm}]
        always: [{id: s, run: x}]
"""


def test_the_always_of_a_group_runs_also_if_its_services_cannot_be_used(stage: Stage) -> None:
    stage.services = lambda service: ServicePlay(not_ready=NotReady("it ended with exit code 1"))
    played = stage.play(IN_GROUP)
    assert played.ends == [("g.s", "succeeded"), ("g", "failed")]
    assert played.end_of("g").code is Code.NOT_READY


def test_a_cancel_while_a_resumed_run_looks_for_services_ends_the_step_inside_and_runs_always(stage: Stage) -> None:
    notes, targets = Notes(), stage.targets()
    stage.play(IN_GROUP, notes, targets)
    begun = next(n for n, what in enumerate(notes.happenings, 1) if isinstance(what, CommandStarted))
    stage.script = lambda command: Play(lasts=60 if command.step == "a" else 0)
    resumed_targets = stage.targets()
    resumed_targets[Place.VM].commands += targets[Place.VM].commands

    def attach(token: Token, service: ServiceCommand) -> RunningService:
        stage.cancel.request()
        time.sleep(0.2)
        raise Unavailable(Reason.ENGINE_STOPPED, "away")

    resumed_targets.services.attach = attach  # type: ignore[method-assign]
    killed = [began(), *notes.happenings[:begun]]
    resumed = stage.play(IN_GROUP, Notes(), resumed_targets, Replay(stamped(killed, time.time(), 0.001)))
    assert resumed.ends == [("g.a", "cancelled"), ("g.s", "succeeded"), ("g", "cancelled")]


def test_services_that_were_unavailable_say_nothing_about_the_place_of_their_step(stage: Stage) -> None:
    """Neither that its agent did not begin, nor that it may fall back."""
    text = """
        containers: {box: {image: alpine}}
        steps: [{id: a, container: box, fallback: {on: local}, run: x, services: {db: {image: x}}}]
    """
    whole = stage.play(text)
    away = TargetUnavailable("a", SERVICES, Place.CONTAINER, Reason.ENGINE_STOPPED, "its services: away")
    may = next(n for n, what in enumerate(whole.notes.happenings, 1) if isinstance(what, MayHaveBegun))
    exposed = Replay(stamped([began(), *whole.notes.happenings[:may], away], time.time(), 0.001)).exposure
    assert exposed.is_exposed
    killed = [began(), whole.notes.happenings[0], away]
    resumed = stage.play(text, Notes(), stage.targets(), Replay(stamped(killed, time.time(), 0.001)))
    assert resumed.order == ["a@container"]
