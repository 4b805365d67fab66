"""Run steps side by side: those of a `parallel:` group, and the legs of a matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from msgspec.structs import replace

from pccpipe.executor.context import RunContext, StepOutcome, WalkPosition
from pccpipe.executor.input_request import InputState
from pccpipe.executor.needs import Needs, run_in_order
from pccpipe.executor.probe import expected_levels
from pccpipe.executor.turn_end import goes_on
from pccpipe.outcome import Outcome
from pccpipe.spec.model import Step

Job: TypeAlias = "tuple[Step, Callable[[], StepOutcome]]"
"""A step, and the call that runs it."""


def run_beside(
    context: RunContext,
    jobs: Sequence[Job],
    position: WalkPosition,
    at_once: int,
    end_before: Callable[[Step, WalkPosition], StepOutcome | None],
    skip: Callable[[Step, WalkPosition, str], StepOutcome] | None = None,
) -> StepOutcome:
    """Run all jobs to their ends, `at_once` in parallel; the first in order that did not pass decides.

    `end_before` returns the outcome of a job that has no turn any more; `skip` ends one whose needs did not pass.
    """

    needs = Needs(context, [step for step, _ in jobs], position)

    def start(index: int) -> Callable[[], StepOutcome]:
        step, run = jobs[index]
        if held := needs.held(index):
            return lambda: held
        missing = needs.missing(index)
        if missing and skip and not context.replay.knows(position.path_of(step.id)):
            why = f"{', '.join(missing)} did not succeed, and this step needs it"
            return lambda: end_before(step, position) or skip(step, position, why)
        return lambda: end_before(step, position) or run()

    levels = expected_levels(context, [step for step, _ in jobs], position)
    with context.exposure.expecting(levels if at_once > 1 else []):
        ends = [ended for ended in run_in_order(needs, at_once, start) if ended]
    # A person's answer takes longer than a model's limit.
    asking = [ended for ended in ends if ended.input is InputState.WANTED]
    asking += [ended for ended in ends if ended.input is InputState.GIVEN]
    if asking:
        return min(asking, key=lambda ended: (ended.input is InputState.GIVEN, ended.due or 0.0))
    for (step, _), ended in zip(jobs, ends, strict=True):
        if not goes_on(context, step, ended):
            return replace(ended, message=f"{step.id}: {ended.message}", result=None, result_path=None)
    return StepOutcome(Outcome.SUCCEEDED)
