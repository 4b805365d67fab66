"""A run that is killed at any event is resumed to the same end, and begins no command twice."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from pccpipe.errors import Unavailable
from pccpipe.executor.numbers import deadline_since
from pccpipe.executor.replay import Replay
from pccpipe.outcome import IsolationMode, Outcome, Place, Reason
from pccpipe.record.events import CommandEnded, CommandStarted, Event, Happening, StepEnded, StepRetrying, StepStarted
from pccpipe.record.run_events import RunStarted
from pccpipe.target import Command, Exit
from pccpipe.targets.dummy import Play
from tests.executor.rehearsal import Notes, Played, Script, Stage
from tests.record.script import events as stamped


class KilledError(BaseException):
    """Replaces kill -9: no code catches it, and no more events are recorded."""


class MortalNotes(Notes):
    """A journal that dies after this many events."""

    def __init__(self, life: int) -> None:
        super().__init__()
        self._life = life

    def append(self, happening: Happening, when_synced: Callable[[], None] | None = None) -> Event:
        if len(self.happenings) >= self._life:
            raise KilledError
        return super().append(happening, when_synced)


def began(step: str = "") -> RunStarted:
    return RunStarted("rehearsal-1", "rehearsal", "/p", "p", IsolationMode.VM, {}, "/w", (step,), "0", "h", 1)


def failing(*ids: str) -> Script:
    return lambda command: Play(exit=Exit(1)) if command.id in ids else Play()


def no_container(command: Command) -> Play:
    if command.container:
        return Play(unavailable=Unavailable(Reason.IMAGE_MISSING, "no such image"))
    return Play(exit=Exit(1)) if command.id == "build-2" else Play()


def approving(command: Command) -> Play:
    status = b"approved" if command.id == "loop-2.review-2" else b"changes_requested"
    return Play(files={"result.json": b'{"status": "%s"}' % status})


def planning(command: Command) -> Play:
    if command.step == "plan":
        return Play(files={"plan.json": b'{"nodes": ["a].b[c", 20], "none": []}'})
    failed = command.step.startswith("unit[node=20")
    return Play(exit=Exit(3 if failed else 0), files={"20.json": b"20", "22.json": b"22", "a].b[c.json": b'{"x": 1}'})


RUNS: dict[str, tuple[str, Script]] = {
    "sequence": (
        """
        steps:
          - {id: a, run: "true"}
          - {id: b, run: "false", continue_on_error: true}
          - {id: c, run: "true", if: steps.b.failed}
          - {id: d, run: "true", if: steps.b.succeeded}
          - {id: e, upload: workspace}
        """,
        failing("b-1"),
    ),
    "retry": (
        "steps: [{id: a, run: x, retry: {attempts: 3, backoff: 0s}}, {id: b, run: x}]",
        failing("a-1", "a-2"),
    ),
    "retry by exit code": (
        """
        steps:
          - {id: a, run: x, retry: {attempts: 3, backoff: 0s, exit_codes: [75]}, continue_on_error: {exit_codes: 2}}
          - {id: b, run: x, retry: {attempts: 3, backoff: 0s, exit_codes: [75]}}
        """,
        lambda command: Play(exit=Exit({"a-1": 75, "a-2": 2, "b-1": 3}[command.id])),
    ),
    "fallback": (
        """
        containers: {box: {image: x}}
        steps:
          - id: build
            on: container
            container: box
            run: x
            retry: {attempts: 2, backoff: 0s, on: [failed, unavailable]}
            fallback: {on: local}
          - {id: after, run: x}
        """,
        no_container,
    ),
    "repeat": (
        """
        steps:
          - id: loop
            repeat: {max: 5, until: steps.review.result.status == 'approved'}
            steps:
              - {id: build, run: "x"}
              - id: review
                if: steps.build.succeeded
                run: "x ${{ iteration }}"
                result: {path: "review/iter-${{ iteration }}/result.json"}
          - {id: after, run: "x ${{ steps.review.result.status }}"}
        """,
        approving,
    ),
    "matrix": (
        "steps: [{id: unit, matrix: {node: [18, 20]}, run: 'x ${{ matrix.node }}'}, {id: b, run: x}]",
        failing(),
    ),
    "matrix of a result": (
        """
        steps:
          - {id: plan, run: x, result: {path: plan.json}}
          - id: unit
            matrix: {node: "${{ steps.plan.result.nodes }}", include: [{node: 22, extra: y}]}
            max_parallel: 2
            run: 'x ${{ matrix.node }} ${{ matrix.extra }}'
            result: {path: "unit/${{ matrix.node }}.json"}
            continue_on_error: true
          - {id: empty, matrix: "${{ steps.plan.result.none }}", run: x}
          - {id: wrong, matrix: "${{ steps.plan.result.nodes[0] }}", run: x, continue_on_error: true}
          - id: rounds
            matrix: {node: "${{ steps.plan.result.nodes }}"}
            repeat: {max: 2}
            steps: [{id: inner, run: 'x ${{ matrix.node }}'}]
          - {id: b, run: 'x ${{ steps.unit.results | tojson }} ${{ steps.empty.outcome }} ${{ steps.rounds.results }}'}
        """,
        planning,
    ),
    "parallel": (
        """
        steps:
          - id: both
            parallel: [{id: a, run: x}, {id: b, run: x}]
          - {id: c, run: x}
        """,
        failing("b-1"),
    ),
    "group tried again": (
        """
        steps:
          - id: loop
            repeat: {max: 1}
            retry: {attempts: 2, backoff: 0s}
            steps: [{id: a, run: x}, {id: b, run: x}]
        """,
        failing("loop-1.b-1"),
    ),
    "background": (
        """
        steps:
          - {id: server, background: true, run: x, ready: {run: x}}
          - {id: a, run: x}
          - {id: rounds, repeat: {max: 2}, steps: [{id: inner, background: true, run: x}, {id: b, run: x}]}
        always: [{id: c, run: x}]
        """,
        lambda command: Play(lasts=60 if command.id in {"server-1", "rounds-1.inner-1", "rounds-2.inner-2"} else 0),
    ),
    "background that is never ready": (
        """
        steps:
          - {id: before, run: x}
          - {id: server, background: true, run: x, ready: {run: x}}
          - {id: a, run: x}
        """,
        lambda command: Play(
            lasts=60 if command.id.endswith(".ready") else 0, exit=Exit(3 if command.step == "server" else 0)
        ),
    ),
    "background in a group tried again": (
        """
        steps:
          - id: loop
            repeat: {max: 1}
            retry: {attempts: 2, backoff: 0s}
            steps:
              - {id: server, background: true, run: x}
              - {id: a, run: x}
              - {id: b, run: x}
        """,
        lambda command: Play(
            lasts=60 if command.step == "server" else 0, exit=Exit(1 if command.id == "loop-1.a-1" else 0)
        ),
    ),
    "background and services in a plain group": (
        """
        steps:
          - id: tests
            services: {db: {image: x, ports: [1]}}
            steps:
              - {id: server, background: true, run: x, ready: {run: x}}
              - {id: a, run: "x ${{ services.db.port }}"}
              - {id: b, run: x}
            always: [{id: late, run: "x ${{ services.db.port }}"}]
          - {id: c, run: x}
        """,
        lambda command: Play(lasts=60 if command.id == "tests.server-1" else 0),
    ),
    "always": (
        """
        steps: [{id: a, run: "false", fails_as: broken}, {id: never, run: x}]
        always: [{id: b, run: "x ${{ run.status }}"}, {id: c, remove: workspace}]
        """,
        failing("a-1", "b-1"),
    ),
    "plain group": (
        """
        steps:
          - id: tests
            continue_on_error: true
            steps: [{id: a, run: x}, {id: b, run: x}, {id: never, run: x}]
            always: [{id: stop, run: x, if: steps.tests.failed}, {id: last, run: "x ${{ steps.b.outcome }}"}]
          - {id: c, run: x}
        """,
        failing("tests.b-1", "tests.stop-1"),
    ),
    "plain group tried again": (
        """
        steps:
          - id: tests
            retry: {attempts: 2, backoff: 0s}
            steps: [{id: a, run: x}, {id: g, steps: [{id: b, run: x}], always: [{id: inner, run: x}]}]
            always: [{id: stop, run: x}]
        always: [{id: outer, steps: [{id: d, run: x}], always: [{id: e, run: x}]}]
        """,
        failing("tests.g.b-1", "outer.d-1"),
    ),
    "always of a loop, of legs and of steps side by side": (
        """
        steps:
          - id: loop
            repeat: {max: 3, until: steps.a.succeeded}
            steps: [{id: a, run: x, continue_on_error: true}]
            always: [{id: after_loop, run: x}]
          - id: legs
            matrix: {n: [1, 2]}
            continue_on_error: true
            steps: [{id: b, run: "x ${{ matrix.n }}"}]
            always: [{id: after_leg, run: "x ${{ matrix.n }}"}]
          - id: both
            parallel: [{id: c, run: x}, {id: d, run: x}]
            always: [{id: after_both, run: x}]
        """,
        failing("loop-1.a-1", "legs-n-1.b-1", "both.c-1", "both.after_both-5"),
    ),
}


def what_began(played: Played) -> list[str]:
    """Return the commands that began; the check of a background command may begin again."""
    began_ = ((place, command.id) for place, target in played.targets.items() for command in target.commands)
    return sorted(f"{place} {command_id}" for place, command_id in began_ if not command_id.endswith(".ready"))


def decisive(notes: Notes) -> list[tuple[str, ...]]:
    """Return the events that decide the course of a run, in the order of each step's own."""
    kinds = (StepStarted, CommandStarted, CommandEnded, StepRetrying, StepEnded)
    lines = [
        (event.step, type(event).__name__, str(getattr(event, "outcome", "")), str(getattr(event, "attempt", "")))
        for event in notes.happenings
        if isinstance(event, kinds)
    ]
    return sorted(lines, key=lambda line: line[0])


# Threads of the killed process that follow a service die at its last event.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("name", RUNS)
def test_a_run_killed_at_any_event_is_resumed_to_the_same_end(stage: Stage, name: str) -> None:
    text, stage.script = RUNS[name]
    whole = stage.play(text)
    assert len(whole.notes.happenings) > 4
    for life in range(len(whole.notes.happenings)):
        notes, targets = MortalNotes(life), stage.targets()
        with pytest.raises(KilledError):
            stage.play(text, notes, targets)
        rest = Notes()
        rest.happenings = list(notes.happenings)
        resumed = stage.play(text, rest, targets, Replay(stamped([began(), *notes.happenings], time.time(), 0.001)))
        assert resumed.ending == whole.ending, f"killed after {life} events"
        assert decisive(rest) == decisive(whole.notes), f"killed after {life} events"
        assert what_began(resumed) == what_began(whole), f"killed after {life} events"
        assert not any(target.left for target in targets.values())


def test_a_cancelled_run_that_is_killed_stays_cancelled_and_runs_its_always_steps(stage: Stage) -> None:
    text = """
        steps: [{id: a, run: sleep}, {id: never, run: x}]
        always: [{id: tidy, run: x}]
    """
    stage.script = lambda command: Play(lasts=60 if command.step == "a" else 0)
    stage.on_event = lambda event: stage.cancel.request("INT") if isinstance(event, CommandStarted) else None
    whole = stage.play(text)
    for life in range(2, len(whole.notes.happenings)):
        replay = Replay(stamped([began(), *whole.notes.happenings[:life]], time.time(), 0.001))
        rest, targets = Notes(), stage.targets()
        stage.cancel.request("INT")
        for command in whole.targets[Place.LOCAL].commands:
            targets[Place.LOCAL].commands.append(command)
        resumed = stage.play(text, rest, targets, replay)
        assert resumed.state.outcome is Outcome.CANCELLED
        assert "never" not in {event.step for event in rest.of(StepStarted)}


def test_a_command_whose_start_was_not_recorded_is_found_and_not_begun_again(stage: Stage) -> None:
    text = "steps: [{id: a, run: x}]"
    notes, targets = MortalNotes(1), stage.targets()
    with pytest.raises(KilledError):
        stage.play(text, notes, targets)
    assert targets[Place.LOCAL].left == {"a-1"}, "the command began, and its start is not in the events"
    resumed = stage.play(text, Notes(), targets, Replay(stamped([began(), *notes.happenings], time.time())))
    assert [command.id for command in targets[Place.LOCAL].commands] == ["a-1"]
    assert resumed.state.outcome is Outcome.SUCCEEDED


def test_a_time_limit_counts_from_the_steps_start_and_leaves_time_to_read_its_end() -> None:
    assert deadline_since(time.time() - 100, 600, "it").left == pytest.approx(500, abs=1)
    assert deadline_since(time.time() - 1000, 600, "it").left == pytest.approx(10, abs=1)
    assert deadline_since(time.time() - 1000, 3, "it").left == pytest.approx(3, abs=1)
    assert deadline_since(time.time() + 5000, 600, "it").left == pytest.approx(600, abs=1)
    assert deadline_since(None, 600, "it").left == pytest.approx(600, abs=1)
