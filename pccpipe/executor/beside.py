"""Run steps side by side: those of a `parallel:` group, and the legs of a matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from msgspec.structs import replace

from pccpipe.executor.context import RunContext, StepOutcome, WalkPosition
from pccpipe.executor.input_request import InputState
from pccpipe.executor.needs import Needs, run_in_order
from pccpipe.executor.probe import expected_levels
from pccpipe.executor.stopping import run_stops, stops_anyway
from pccpipe.executor.turn_end import goes_on
from pccpipe.outcome import Outcome
from pccpipe.spec.model import Step

Job: TypeAlias = "tuple[Step, Callable[[RunContext], StepOutcome]]"
"""A step, and the call that runs it."""
FAIL_FAST = "fail_fast"


def run_beside(
    context: RunContext,
    jobs: Sequence[Job],
    position: WalkPosition,
    at_once: int,
    end_before: Callable[[Step, WalkPosition], StepOutcome | None],
    skip: Callable[[Step, WalkPosition, str], StepOutcome],
    *,
    fail_fast: bool,
) -> StepOutcome:
    """Run all jobs to their ends, `at_once` in parallel; the first in order that did not pass decides.

    `end_before` returns the outcome of a job that has no turn any more; `skip` ends one that gets no turn. With
    `fail_fast`, the first failure cancels the other jobs, and a cancelled one does not decide.
    """
    needs = Needs(context, [step for step, _ in jobs], position)
    with context.cancel.child() as cancel:
        inside = replace(context, cancel=cancel) if fail_fast else context

        def judge(step: Step, ended: StepOutcome) -> StepOutcome:
            if fail_fast and _is_failure(context, step, ended):
                cancel.request(FAIL_FAST, why=f"{step.id} {ended.outcome.value.replace('_', ' ')} (fail_fast)")
            return ended

        def start(index: int) -> Callable[[], StepOutcome]:
            step, run = jobs[index]
            if held := needs.held(index):
                return lambda: held
            missing = needs.missing(index)

            def take_turn() -> StepOutcome:
                if ended := end_before(step, position):
                    return ended
                if not context.replay.knows(position.path_of(step.id)):
                    if missing:
                        return skip(step, position, f"{', '.join(missing)} did not succeed, and this step needs it")
                    if fail_fast and cancel.requested:
                        return skip(step, position, cancel.why)
                return judge(step, run(inside))

            return take_turn

        for step, _ in jobs:
            # A killed process may not have come to the cancel.
            coming = context.replay.coming(position.path_of(step.id))
            if coming and (over := coming.ended):
                judge(step, StepOutcome(over.outcome, over.exit_code, over.reason, over.code, ignored=over.ignored))
        levels = expected_levels(context, [step for step, _ in jobs], position)
        with context.exposure.expecting(levels if at_once > 1 else []):
            ends = [ended for ended in run_in_order(needs, at_once, start) if ended]
    # A person's answer takes longer than a model's limit.
    asking = [ended for ended in ends if ended.input is InputState.WANTED]
    asking += [ended for ended in ends if ended.input is InputState.GIVEN]
    failed = fail_fast and cancel.by == FAIL_FAST
    if asking and not failed:
        return min(asking, key=lambda ended: (ended.input is InputState.GIVEN, ended.due or 0.0))
    stopped = [(step, ended) for (step, _), ended in zip(jobs, ends, strict=True) if not goes_on(context, step, ended)]
    causes = [(step, ended) for step, ended in stopped if not failed or _is_failure(context, step, ended)]
    for step, ended in causes or stopped:
        return replace(ended, message=f"{step.id}: {ended.message}", result=None, result_path=None)
    return StepOutcome(Outcome.SUCCEEDED)


def _is_failure(context: RunContext, step: Step, ended: StepOutcome) -> bool:
    """Say whether the group fails because of this end; a cancel, or a place that the run waits for, is none."""
    waits = ended.input is not InputState.NONE or run_stops(context, ended) or stops_anyway(context, ended)
    return not waits and ended.outcome is not Outcome.CANCELLED and not goes_on(context, step, ended)
