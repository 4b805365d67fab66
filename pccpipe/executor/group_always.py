"""Run a group's own `always:` steps once, however its other steps ended."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from pccpipe.executor.context import RunContext, StepOutcome, WalkPosition
from pccpipe.executor.input_request import InputState
from pccpipe.executor.replay import Turn
from pccpipe.executor.scope import StepView
from pccpipe.executor.turn_end import PASSING, continues_after, stops_run
from pccpipe.outcome import Outcome
from pccpipe.record.events import GroupAlwaysStarted, StepEnded
from pccpipe.spec.model import Step


def recorded_end(turn: Turn) -> StepOutcome | None:
    """Return how the steps of a group ended in an earlier process; None if they go on."""
    for begun in turn.all_of(GroupAlwaysStarted):
        return StepOutcome(
            begun.outcome, reason=begun.reason, code=begun.code, message=begun.message, fails_as=begun.fails_as
        )
    if turn.ended:
        ended = turn.ended
        return StepOutcome(ended.outcome, reason=ended.reason, code=ended.code, message=ended.message)
    return None


def run_group_always(
    context: RunContext,
    step: Step,
    position: WalkPosition,
    turn: Turn,
    ended: StepOutcome,
    run: Callable[[RunContext, Step, WalkPosition], StepOutcome],
) -> StepOutcome:
    """Run each `always:` step of a group, whatever the earlier ones did; the first that fails fails the group.

    A group that the run stops in, or waits in, has not ended: a resume continues it.
    """
    if not step.always or ended.input is InputState.WANTED or stops_run(context, step, position, ended):
        return ended
    path = position.path_of(step.id)
    is_over = bool(turn.ended or position.over or (context.replay.always and not position.always))
    if not is_over and not turn.all_of(GroupAlwaysStarted):
        begins = GroupAlwaysStarted(path, ended.outcome, ended.message, ended.code, ended.reason, ended.fails_as)
        context.journal.append(begins)
    if step.id in position.scope.steps:
        position.scope.steps[step.id] = StepView(StepEnded(path, ended.outcome, 0.0))
    # A time limit of the group does not end them, and each has its own.
    inside = replace(position.inside(path), always=True, deadline=None, over=None)
    for each in step.always:
        if is_over and not context.replay.knows(inside.path_of(each.id)):
            continue
        with context.cancel.shield() as cancel:
            of_step = run(replace(context, cancel=cancel), each, inside)
        failed = of_step.outcome not in PASSING and not continues_after(each, of_step)
        if failed and ended.outcome is Outcome.SUCCEEDED:
            ended = replace(of_step, message=f"{each.id} (always): {of_step.message}", result=None, result_path=None)
    return ended
