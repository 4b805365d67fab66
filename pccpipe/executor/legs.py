"""The legs of a matrix in a run: their values, their steps, and the list of their results."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from msgspec.structs import replace

from pccpipe import limits
from pccpipe.errors import PccpipeError, UsageError
from pccpipe.executor.context import LegEnd, RunContext, StepOutcome, WalkPosition
from pccpipe.executor.replay import Turn
from pccpipe.record.events import StepStarted
from pccpipe.spec.absent import NoResult
from pccpipe.spec.matrix import Leg, Matrix, written_label
from pccpipe.spec.model import Run, Step


def begin_legs(context: RunContext, step: Step, matrix: Matrix, position: WalkPosition, turn: Turn) -> tuple[Leg, ...]:
    """Return the legs of a step's turn, and record its start; of a resumed turn, those that its record has.

    None are recorded for an empty matrix. Raises ExpressionError, UsageError.
    """
    started = turn.consume(StepStarted)
    if started and started.legs is not None:
        return started.legs
    legs = matrix.legs(position.scope.names)
    if matrix.expressions and position.legs * len(legs) > limits.STEPS.most:
        raise UsageError(limits.STEPS.exceeded())
    if legs and not started:
        given = legs if matrix.expressions else None
        path = position.path_of(step.id)
        context.journal.append(StepStarted(path, "matrix", name=step.name, always=position.always, legs=given))
    return legs


def leg_positions(position: WalkPosition, legs: Sequence[Leg]) -> list[WalkPosition]:
    """Return the position of each leg. A value that only other legs have is empty."""
    missing = {name: NoResult() for leg in legs for name in leg}
    around = position.legs * len(legs)
    return [replace(position, scope=position.scope.in_leg(leg, missing), legs=around) for leg in legs]


def leg_step(context: RunContext, step: Step, leg: Leg, name: str, position: WalkPosition) -> Step:
    """Return the step that runs one leg, with that name in its path."""
    body = step.body
    older = f"{step.id}[{written_label(leg)}]"
    if context.replay.knows(position.path_of(older)):
        name = written_label(leg)
    if isinstance(body, Run):
        # A wrong name of a container ends the leg in its turn.
        with contextlib.suppress(PccpipeError):
            body = body.in_leg(position.scope.names)
    return replace(step, id=f"{step.id}[{name}]", body=body, matrix=None, fails_as=None, needs=())


def with_legs(ended: StepOutcome, legs: Sequence[Leg], ends: Sequence[StepOutcome | None]) -> StepOutcome:
    """Return the end of a matrix with those of its legs; a leg that had no turn has none."""
    pairs = tuple(LegEnd(leg, end) for leg, end in zip(legs, ends, strict=True))
    return replace(ended, legs=pairs, unattested=any(end is not None and end.unattested for end in ends))
