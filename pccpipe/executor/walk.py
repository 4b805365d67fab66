"""Walk through the steps of a pipeline: order, conditions, matrix, repeat, parallel. Record the end of each."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from pccpipe import limits
from pccpipe.cancel import Deadline
from pccpipe.errors import PccpipeError
from pccpipe.executor.actions import kind_of, run_action
from pccpipe.executor.attestation import unattested_condition
from pccpipe.executor.cause import name_failed_step, rounds_exhausted
from pccpipe.executor.context import ALWAYS_LIMIT, STEP_LIMIT, LeftOpen, RunContext, StepOutcome, WalkPosition
from pccpipe.executor.input_request import InputState, requested_input, unmarked_request
from pccpipe.executor.numbers import number_of
from pccpipe.executor.probe import expected_levels
from pccpipe.executor.replay import Turn, deadline_since
from pccpipe.executor.retry import with_retries
from pccpipe.executor.scope import StepView
from pccpipe.executor.step import run_step
from pccpipe.executor.waiting import is_away
from pccpipe.outcome import Outcome, Place, Reason
from pccpipe.record.events import (
    CommandStarted,
    InputAsked,
    RoundStarted,
    StepEnded,
    StepStarted,
    Warned,
)
from pccpipe.record.logs import tail
from pccpipe.spec.absent import NoResult, lenient
from pccpipe.spec.model import Build, Diff, Download, Parallel, Remove, Repeat, Run, Step, Upload
from pccpipe.values import Json

PASSING = frozenset({Outcome.SUCCEEDED, Outcome.SKIPPED})


class Walk(Struct, frozen=True):
    """The walk through the steps of one run, or of its `always:`. Safe from many threads."""

    context: RunContext

    def sequence(self, steps: Sequence[Step], position: WalkPosition) -> StepOutcome:
        """Run steps in order, up to the first that does not pass."""
        for step in steps:
            earlier_end = self._end_before(step, position)
            ended = earlier_end or self.step(step, position)
            if earlier_end or ended.input is not InputState.NONE:
                return ended
            if not self._goes_on(step, ended):
                return ended if ended.at is not None else replace(ended, at=step.id)
        return StepOutcome(Outcome.SUCCEEDED)

    def _end_before(self, step: Step, position: WalkPosition) -> StepOutcome | None:
        """Return the outcome that ends the sequence before a step; None: the step has its turn.

        A turn that an earlier process began is always finished. Raises `LeftOpen` for a fenced run: the process that
        resumes it has that turn, also of a step on this machine.
        """
        if self.context.targets.fenced and not position.always:
            raise LeftOpen(self.context.targets.fenced)
        if self.context.replay.knows(position.path_of(step.id)):
            return None
        if self.context.replay.always and not position.always:
            # The killed process was at the `always:` steps: the record has the end of the others.
            over = self.context.replay.always
            return StepOutcome(over.outcome, code=over.code, fails_as=over.status, message=over.outcome.value)
        if self.context.cancel.requested:
            return StepOutcome(Outcome.CANCELLED, message="cancelled")
        if position.deadline and position.deadline.passed:
            return StepOutcome(Outcome.TIMED_OUT, message=position.deadline.message)
        return None

    def step(self, step: Step, position: WalkPosition) -> StepOutcome:
        """Run one step with its condition and its matrix; record its end, and put it into the scope."""
        return self._until_answered(position, lambda: self._turn(step, position))

    def _until_answered(self, position: WalkPosition, take_turn: Callable[[], StepOutcome]) -> StepOutcome:
        """Give a step another turn while its agent gets answers; in a `repeat`, the next round is that turn."""
        ended = take_turn()
        while ended.input is InputState.GIVEN and not position.in_round:
            ended = take_turn()
        return ended

    def _turn(self, step: Step, position: WalkPosition) -> StepOutcome:
        began = time.monotonic()
        turn = self.context.replay.next_turn(position.path_of(step.id))
        if turn.ended and (turn.ended.outcome is Outcome.SKIPPED or not _has_inner(step)):
            return self._end(step, position, turn, self._replayed(step, turn, turn.ended), began)
        try:
            if not turn.recorded and step.condition is not None and not step.condition.evaluate(position.scope.names):
                return self._end(step, position, turn, StepOutcome(Outcome.SKIPPED), began)
            forged = (*position.forged, *unattested_condition(position.scope, step.condition))
            position = replace(position, deadline=self._deadline(step, position, turn), forged=forged)
            if step.matrix:
                path = position.path_of(step.id)
                self.context.record_once(turn, StepStarted(path, "matrix", name=step.name, always=position.always))
                ended = self._matrix(step, position)
            else:
                ended = self._leg(step, position, turn)
        except PccpipeError as error:
            ended = StepOutcome(Outcome.FAILED, message=str(error))
        return self._end(step, position, turn, ended, began)

    def _deadline(self, step: Step, position: WalkPosition, turn: Turn) -> Deadline:
        seconds = number_of(step.timeout, position.scope.names, "timeout")
        if seconds is None:
            seconds = ALWAYS_LIMIT if position.always else STEP_LIMIT
        return deadline_since(turn.began_at, seconds, f"step {step.id}").nearest(position.deadline)

    def _replayed(self, step: Step, turn: Turn, ended: StepEnded) -> StepOutcome:
        """Return the outcome of a step that ended in an earlier process."""
        if isinstance(step.body, Run):
            self.context.serials.skip(step.id, turn.attempts)
        logs = None
        for started in turn.all_of(CommandStarted):
            logs = (self.context.run_dir / started.stdout, self.context.run_dir / started.stderr)
        fails_as = step.fails_as if ended.outcome not in PASSING else None
        return StepOutcome(
            ended.outcome,
            ended.exit_code,
            ended.reason,
            ended.code,
            ended.message,
            ended.result,
            ended.result_path,
            ended.unattested,
            ignored=ended.ignored,
            fails_as=fails_as,
            logs=logs,
        )

    def _leg(self, step: Step, position: WalkPosition, turn: Turn) -> StepOutcome:
        """Run the step's body once; a leg of a matrix has its values in scope."""
        path = position.path_of(step.id)
        kind, asked = _describe(step)
        body, timeout = step.body, None
        if isinstance(body, Run) and body.agent and position.deadline:
            timeout = round(position.deadline.left, 1)
        self.context.record_once(turn, StepStarted(path, kind, asked, step.name, position.always, timeout))
        match body:
            case Run():
                ended = run_step(self.context, position, step, body, turn)
            case Upload() | Download() | Diff() | Remove() | Build():
                # A resume repeats an action as a whole, with the same result.
                ended = run_action(self.context, position, step, body)
            case Repeat():
                ended = self._retried(
                    step, position, turn, lambda _: self._repeat(body, position, path, turn, step.fails_as)
                )
            case Parallel():
                ended = self._retried(step, position, turn, lambda _: self._parallel(body, position, path))
            case _:
                assert_never(body)
        # A `repeat` with `until` says itself whether it ran out of rounds: a failed step inside has its own status.
        has_goal = isinstance(body, Repeat) and body.until is not None
        if step.fails_as and ended.outcome not in PASSING and not has_goal:
            ended = replace(ended, fails_as=step.fails_as)
        return ended

    def _retried(
        self, step: Step, position: WalkPosition, turn: Turn, attempt: Callable[[int], StepOutcome]
    ) -> StepOutcome:
        return with_retries(self.context, position, position.path_of(step.id), step.retry, attempt, turn)

    def _repeat(self, body: Repeat, position: WalkPosition, path: str, turn: Turn, fails_as: str | None) -> StepOutcome:
        most = number_of(body.max, position.scope.names, "max")
        assert most is not None
        expected_levels(self.context, body.steps, position)
        number, rounds = 0, int(most)
        while number < rounds:
            number += 1
            self.context.record_once(turn, RoundStarted(path, number, rounds))
            inside = replace(position.inside(f"{path}[{number}]", position.scope.in_round(number)), in_round=True)
            ended = self.sequence(body.steps, inside)
            if ended.input is InputState.WANTED:
                return ended
            if ended.input is InputState.GIVEN:
                # The round finished no work that others could judge, so it does not count: one more round follows.
                rounds += 1
                continue
            if ended.outcome is not Outcome.SUCCEEDED:
                return name_failed_step(ended, f" in round {number}")
            if body.until is not None and body.until.evaluate(inside.scope.names):
                position.scope.forged.extend(unattested_condition(inside.scope, body.until))
                return ended
        if body.until is None:
            return StepOutcome(Outcome.SUCCEEDED)
        return rounds_exhausted(body, fails_as, rounds, position.scope.steps)

    def _parallel(self, body: Parallel, position: WalkPosition, path: str) -> StepOutcome:
        inside = position.inside(path)
        jobs = [(step, lambda step=step: self.step(step, inside)) for step in body.steps]
        return self._side_by_side(jobs, inside, body.max_parallel)

    def _matrix(self, step: Step, position: WalkPosition) -> StepOutcome:
        legs = [dict(zip(step.matrix, values, strict=True)) for values in itertools.product(*step.matrix.values())]
        jobs = [
            (leg_step, lambda leg_step=leg_step, leg=leg: self._matrix_leg(leg_step, position, leg))
            for leg_step, leg in ((_leg_step(step, leg), leg) for leg in legs)
        ]
        return self._side_by_side(jobs, position, step.matrix_parallel)

    def _matrix_leg(self, leg_step: Step, position: WalkPosition, leg: dict[str, Json]) -> StepOutcome:
        return self._until_answered(position, lambda: self._leg_turn(leg_step, position, leg))

    def _leg_turn(self, leg_step: Step, position: WalkPosition, leg: dict[str, Json]) -> StepOutcome:
        began = time.monotonic()
        turn = self.context.replay.next_turn(position.path_of(leg_step.id))
        inside = replace(position, scope=position.scope.in_leg(leg))
        if turn.ended and not _has_inner(leg_step):
            return self._end(leg_step, inside, turn, self._replayed(leg_step, turn, turn.ended), began)
        try:
            ended = self._leg(leg_step, inside, turn)
        except PccpipeError as error:
            ended = StepOutcome(Outcome.FAILED, message=str(error))
        return self._end(leg_step, inside, turn, ended, began)

    def _side_by_side(
        self, jobs: Sequence[tuple[Step, Callable[[], StepOutcome]]], position: WalkPosition, at_once: int
    ) -> StepOutcome:
        """Run all jobs to their ends, `at_once` in parallel; the first in order that did not pass decides."""

        def unless_over(job: tuple[Step, Callable[[], StepOutcome]]) -> StepOutcome:
            step, run = job
            return self._end_before(step, position) or run()

        levels = expected_levels(self.context, [step for step, _ in jobs], position)
        if at_once == 1:
            ends = [unless_over(job) for job in jobs]
        else:
            pool = ThreadPoolExecutor(max_workers=at_once, thread_name_prefix="pccpipe-step")
            with self.context.exposure.expecting(levels), pool:
                ends = list(pool.map(unless_over, jobs))
        # A person's answer takes longer than a model's limit.
        asking = [ended for ended in ends if ended.input is InputState.WANTED]
        asking += [ended for ended in ends if ended.input is InputState.GIVEN]
        if asking:
            return min(asking, key=lambda ended: (ended.input is InputState.GIVEN, ended.due or 0.0))
        for (step, _), ended in zip(jobs, ends, strict=True):
            if not self._goes_on(step, ended):
                return replace(ended, message=f"{step.id}: {ended.message}", result=None, result_path=None)
        return StepOutcome(Outcome.SUCCEEDED)

    def _goes_on(self, step: Step, ended: StepOutcome) -> bool:
        if ended.outcome in PASSING or ended.ignored:
            return True
        # A place of the run is unreachable, taken by another run, or has processes left: the run stops here.
        stops = ended.outcome is Outcome.UNAVAILABLE and (
            ended.reason in {Reason.PROCESSES_LEFT, Reason.VM_BUSY} or is_away(self.context, ended.reason)
        )
        return step.continue_on_error and not stops and ended.outcome is not Outcome.CANCELLED

    def _end(self, step: Step, position: WalkPosition, turn: Turn, ended: StepOutcome, began: float) -> StepOutcome:
        if ended.input is InputState.WANTED:
            return ended  # the group around it has not ended
        fenced = self.context.targets.fenced
        if fenced and not turn.ended and ended.outcome in {Outcome.UNAVAILABLE, Outcome.LOST}:
            raise LeftOpen(fenced)
        ignored = ended.outcome not in PASSING and self._goes_on(step, ended)
        seconds = time.time() - turn.began_at if turn.began_at else time.monotonic() - began
        event = StepEnded(
            position.path_of(step.id),
            ended.outcome,
            seconds,
            ended.exit_code,
            ended.reason,
            ended.message,
            ended.result,
            ended.result_path,
            ignored,
            ended.code,
            ended.unattested,
        )
        if not turn.ended:
            self.context.journal.append(event)
        if step.id in position.scope.steps:
            position.scope.steps[step.id] = _view(event, ended.logs, position.scope.steps[step.id])
        if isinstance(step.body, Run) and not step.matrix and not position.always:
            return self._with_input_request(step, position, turn, ended)
        return ended

    def _with_input_request(self, step: Step, position: WalkPosition, turn: Turn, ended: StepOutcome) -> StepOutcome:
        """Return the end of a step whose agent may have asked a person for input."""
        path = position.path_of(step.id)
        if ended.outcome is not Outcome.SUCCEEDED or self.context.cancel.requested:
            return ended
        request = unmarked_request(ended.result)
        if request and not turn.ended:
            self.context.journal.append(
                Warned(f"its agent asks for input without the marks of a request: {request}", path)
            )
        wanted = requested_input(ended.result)
        if wanted is None:
            return ended
        if not turn.is_input_requested:
            self.context.journal.append(InputAsked(path, wanted.tried, wanted.needed, wanted.inputs))
        if any(key not in turn.answers for key in wanted.inputs):
            return replace(ended, input=InputState.WANTED, message=f"{path} needs {wanted.needed}")
        # Expressions know a leg of a matrix, such as `unit[node=20]`, as `unit`.
        name = step.id.partition("[")[0]
        view = position.scope.steps[name]
        position.scope.steps[name] = replace(view, answers=view.answers.with_more(turn.answers))
        return replace(ended, input=InputState.GIVEN)


def _has_inner(step: Step) -> bool:
    """Say whether a step has turns of other steps inside; a replay walks through those also when it has ended."""
    return bool(step.matrix) or isinstance(step.body, Repeat | Parallel)


def _leg_step(step: Step, leg: Mapping[str, Json]) -> Step:
    label = ",".join(f"{key}={value}" for key, value in leg.items())
    return replace(step, id=f"{step.id}[{label}]", matrix={}, fails_as=None)


def _describe(step: Step) -> tuple[str, Place | None]:
    body = step.body
    match body:
        case Run():
            return "agent" if body.agent else "run", body.where.on
        case Upload() | Download() | Diff() | Remove() | Build():
            return kind_of(body), None
        case Repeat() | Parallel():
            return type(body).__name__.lower(), None
        case _:
            assert_never(body)


def _view(ended: StepEnded, logs: tuple[Path, Path] | None, before: StepView) -> StepView:
    # Expressions see a result only if its step succeeded; people find that of a failed one in the run's folder.
    has_result = ended.outcome is Outcome.SUCCEEDED and ended.result_path
    result = lenient(ended.result) if has_result else NoResult()
    last = before.last_result if isinstance(result, NoResult) else result
    read_log = (lambda which: _log_end(logs, which)) if logs else None
    unattested = ended.unattested or (before.unattested and isinstance(result, NoResult))
    return StepView(ended, result, last, before.answers, unattested, read_log)


def _log_end(logs: tuple[Path, Path], which: str) -> str:
    stdout, stderr = logs
    match which:
        case "stdout":
            return tail(stdout, limits.STEP_OUTPUT.most)
        case "stderr":
            return tail(stderr, limits.STEP_OUTPUT.most)
        case _:
            return "\n".join(
                part for part in (tail(stdout, limits.STEP_OUTPUT.most), tail(stderr, limits.STEP_OUTPUT.most)) if part
            )
