"""Walk through the steps of a pipeline: their order, conditions, matrix and groups."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from pccpipe.cancel import Deadline
from pccpipe.errors import PccpipeError
from pccpipe.executor.actions import kind_of, run_action
from pccpipe.executor.attestation import unattested_condition, unattested_matrix
from pccpipe.executor.beside import Job, run_beside
from pccpipe.executor.cause import name_failed_step
from pccpipe.executor.companions import Companions, companions, is_background
from pccpipe.executor.context import ALWAYS_LIMIT, STEP_LIMIT, LeftOpen, RunContext, StepOutcome, WalkPosition
from pccpipe.executor.group_always import recorded_end, run_group_always
from pccpipe.executor.input_request import InputState
from pccpipe.executor.legs import begin_legs, leg_positions, leg_step, with_legs
from pccpipe.executor.numbers import deadline_since, number_of
from pccpipe.executor.own_workspace import in_own_workspace
from pccpipe.executor.probe import expected_levels
from pccpipe.executor.replay import Turn
from pccpipe.executor.retry import with_retries
from pccpipe.executor.rounds import run_rounds
from pccpipe.executor.services import with_services
from pccpipe.executor.step import run_step
from pccpipe.executor.turn_end import PASSING, end_turn, goes_on, replayed_end, stops_run
from pccpipe.outcome import Outcome, Place
from pccpipe.record.events import StepRetrying, StepStarted
from pccpipe.spec.matrix import Matrix, labels
from pccpipe.spec.model import Build, Diff, Download, Group, Parallel, Remove, Repeat, Run, Step, Upload


class Walk(Struct, frozen=True):
    """The walk through the steps of one run, or of its `always:`. Safe from many threads."""

    context: RunContext

    def sequence(self, steps: Sequence[Step], position: WalkPosition) -> StepOutcome:
        """Run steps in order, up to the first that does not pass; then end its background commands."""
        with companions(self.context, lambda context, step, inside: Walk(context).step(step, inside)) as beside:
            return beside.end_with(self._in_order(steps, position, beside))

    def _in_order(self, steps: Sequence[Step], position: WalkPosition, beside: Companions) -> StepOutcome:
        for step in steps:
            earlier_end = beside.failed_before(step, position) or self._end_before(step, position)
            take_turn = beside.begin if is_background(step) else self.step
            ended = earlier_end or take_turn(step, beside.around(position))
            position.share_exports(step, ended)
            if earlier_end or ended.input is not InputState.NONE:
                return ended
            if not goes_on(self.context, step, ended):
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
        if position.over:
            return position.over
        if self.context.cancel.requested:
            return StepOutcome(Outcome.CANCELLED, message=self.context.cancel.message)
        if failure := next(filter(None, (services.failure for services in position.services)), None):
            return failure
        if position.deadline and position.deadline.passed:
            return StepOutcome(Outcome.TIMED_OUT, message=position.deadline.message)
        return None

    def step(self, step: Step, position: WalkPosition) -> StepOutcome:
        """Run one step with its condition and its matrix; record its end, and put it into the scope."""
        if step.matrix:
            return self._until_answered(position, lambda: self._turn(step, position))
        return in_own_workspace(
            self.context,
            step,
            position,
            lambda context: self._until_answered(position, lambda: Walk(context)._turn(step, position)),
        )

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
            return end_turn(
                self.context, step, position, turn, replayed_end(self.context, step, turn, turn.ended), began
            )
        try:
            if not turn.recorded and step.condition is not None and not step.condition.evaluate(position.scope.names):
                return end_turn(self.context, step, position, turn, StepOutcome(Outcome.SKIPPED), began)
            forged = (*position.forged, *unattested_condition(position.scope, step.condition))
            position = replace(position, deadline=self._deadline(step, position, turn), forged=forged)
            matrix = step.matrix
            ended = self._matrix(step, matrix, position, turn) if matrix else self._leg(step, position, turn)
        except PccpipeError as error:
            ended = StepOutcome(Outcome.FAILED, message=str(error))
        return end_turn(self.context, step, position, turn, ended, began)

    def _deadline(self, step: Step, position: WalkPosition, turn: Turn) -> Deadline:
        seconds = number_of(step.timeout, position.scope.names, "timeout")
        if seconds is None:
            seconds = ALWAYS_LIMIT if position.always else STEP_LIMIT
        return deadline_since(turn.began_at, seconds, f"step {step.id}").nearest(position.deadline)

    def _leg(self, step: Step, position: WalkPosition, turn: Turn) -> StepOutcome:
        """Run the step's body once; a leg of a matrix has its values in scope."""
        path = position.path_of(step.id)
        kind, asked = _describe(step)
        body, timeout = step.body, None
        if isinstance(body, Run) and body.agent and position.deadline:
            timeout = round(position.deadline.left, 1)
        started = StepStarted(path, kind, asked, step.name, position.always, timeout, background=is_background(step))
        self.context.record_once(turn, started)
        ended = with_services(self.context, position, step, turn, functools.partial(self._body, step, turn))
        # A `repeat` with `until` says itself whether it ran out of rounds: a failed step inside has its own status.
        has_goal = isinstance(body, Repeat) and body.until is not None
        if step.fails_as and ended.outcome not in PASSING and not has_goal:
            ended = replace(ended, fails_as=step.fails_as)
        return ended

    def _body(self, step: Step, turn: Turn, position: WalkPosition, refused: StepOutcome | None) -> StepOutcome:
        """Run a step's body; `refused` is its end if its services cannot be used."""
        body = step.body
        if refused and (not _has_inner(step) or stops_run(self.context, step, position, refused)):
            return refused
        match body:
            case Run():
                ended = run_step(self.context, position, step, body.in_leg(position.scope.names), turn)
            case Upload() | Download() | Diff() | Remove() | Build():
                # A resume repeats an action as a whole, with the same result.
                ended = run_action(self.context, position, step, body)
            case Repeat() | Parallel() | Group():
                ended = self._group(step, body, position, turn, refused)
            case _:
                assert_never(body)
        return ended

    def _group(
        self,
        step: Step,
        body: Repeat | Parallel | Group,
        position: WalkPosition,
        turn: Turn,
        refused: StepOutcome | None,
    ) -> StepOutcome:
        """Run a group's steps, and again as its `retry:` says; then its own `always:`."""
        path, retry, over = position.path_of(step.id), step.retry, recorded_end(turn) or refused
        inside = replace(position, tolerated=position.tolerated or step.continue_on_error)
        if over:
            inside = replace(inside, over=over)
            retry = replace(retry, attempts=1 + len(turn.all_of(StepRetrying)))
        try:
            if refused and turn.began_at is None:
                ended = refused
            else:
                once = lambda _: self._once(step, body, inside, turn)  # noqa: E731
                ended = with_retries(self.context, inside, path, retry, once, turn)
        except PccpipeError as error:
            ended = StepOutcome(Outcome.FAILED, message=str(error))
        if over and ended.outcome is not over.outcome:
            ended = over
        return run_group_always(self.context, step, position, turn, ended, lambda context, *at: Walk(context).step(*at))

    def _once(self, step: Step, body: Repeat | Parallel | Group, position: WalkPosition, turn: Turn) -> StepOutcome:
        path = position.path_of(step.id)
        match body:
            case Repeat():
                return run_rounds(self.context, body, position, path, turn, step.fails_as, self.sequence)
            case Parallel():
                return self._parallel(body, position, path)
            case Group():
                expected_levels(self.context, body.steps, position)
                ended = name_failed_step(self.sequence(body.steps, position.inside(path)))
                return replace(ended, result=None, result_path=None)
            case _:
                assert_never(body)

    def _parallel(self, body: Parallel, position: WalkPosition, path: str) -> StepOutcome:
        inside = position.inside(path)
        jobs: list[Job] = [
            (step, lambda context, step=step: Walk(context).step(step, inside))  # type: ignore[misc]
            for step in body.steps
        ]
        return run_beside(
            self.context, jobs, inside, body.max_parallel, self._end_before, self._skip, fail_fast=body.fail_fast
        )

    def _skip(self, step: Step, position: WalkPosition, why: str) -> StepOutcome:
        turn = self.context.replay.next_turn(position.path_of(step.id))
        ended = StepOutcome(Outcome.SKIPPED, message=why)
        return end_turn(self.context, step, position, turn, ended, time.monotonic())

    def _matrix(self, step: Step, matrix: Matrix, position: WalkPosition, turn: Turn) -> StepOutcome:
        if turn.ended and turn.peek(StepStarted) is None:
            return replayed_end(self.context, step, turn, turn.ended)  # it had no legs
        legs = begin_legs(self.context, step, matrix, position, turn)
        if not legs:
            return StepOutcome(Outcome.SKIPPED, message="its matrix has no legs")
        forged = (*position.forged, *unattested_matrix(position.scope, matrix))
        position = replace(position, forged=forged, over=recorded_end(turn) or position.over)
        ends: list[StepOutcome | None] = [None] * len(legs)

        def run(index: int, leg: Step, inside: WalkPosition, context: RunContext) -> StepOutcome:
            ended = in_own_workspace(
                context,
                leg,
                inside,
                lambda context: self._until_answered(position, lambda: Walk(context)._leg_turn(leg, inside)),
            )
            ends[index] = ended
            return ended

        jobs: list[Job] = []
        names = labels(matrix, legs)
        for index, inside in enumerate(leg_positions(position, legs)):
            leg = leg_step(self.context, step, legs[index], names[index], inside)
            jobs.append((leg, functools.partial(run, index, leg, inside)))
        ended = run_beside(
            self.context, jobs, position, step.matrix_parallel, self._end_before, self._skip, fail_fast=step.fail_fast
        )
        return with_legs(ended, legs, ends)

    def _leg_turn(self, leg: Step, inside: WalkPosition) -> StepOutcome:
        began = time.monotonic()
        turn = self.context.replay.next_turn(inside.path_of(leg.id))
        if turn.ended and not _has_inner(leg):
            ended = replayed_end(self.context, leg, turn, turn.ended)
            return end_turn(self.context, leg, inside, turn, ended, began)
        try:
            ended = self._leg(leg, inside, turn)
        except PccpipeError as error:
            ended = StepOutcome(Outcome.FAILED, message=str(error))
        return end_turn(self.context, leg, inside, turn, ended, began)


def _has_inner(step: Step) -> bool:
    """Say whether a step has turns of other steps inside; a replay walks through those also when it has ended."""
    return step.matrix is not None or isinstance(step.body, Repeat | Parallel | Group)


def _describe(step: Step) -> tuple[str, Place | None]:
    body = step.body
    match body:
        case Run():
            return "agent" if body.agent else "run", body.where.on
        case Upload() | Download() | Diff() | Remove() | Build():
            return kind_of(body), None
        case Repeat() | Parallel() | Group():
            return type(body).__name__.lower(), None
        case _:
            assert_never(body)
