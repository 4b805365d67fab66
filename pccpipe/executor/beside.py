"""Run steps side by side: those of a `parallel:` group, and the legs of a matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

from msgspec.structs import replace

from pccpipe.executor.context import RunContext, StepOutcome, WalkPosition
from pccpipe.executor.input_request import InputState
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
) -> StepOutcome:
    """Run all jobs to their ends, `at_once` in parallel; the first in order that did not pass decides.

    `end_before` returns the outcome of a job that has no turn any more.
    """

    def unless_over(job: Job) -> StepOutcome:
        step, run = job
        return end_before(step, position) or run()

    levels = expected_levels(context, [step for step, _ in jobs], position)
    if at_once == 1:
        ends = [unless_over(job) for job in jobs]
    else:
        pool = ThreadPoolExecutor(max_workers=at_once, thread_name_prefix="pccpipe-step")
        with context.exposure.expecting(levels), pool:
            ends = list(pool.map(unless_over, jobs))
    # A person's answer takes longer than a model's limit.
    asking = [ended for ended in ends if ended.input is InputState.WANTED]
    asking += [ended for ended in ends if ended.input is InputState.GIVEN]
    if asking:
        return min(asking, key=lambda ended: (ended.input is InputState.GIVEN, ended.due or 0.0))
    for (step, _), ended in zip(jobs, ends, strict=True):
        if not goes_on(context, step, ended):
            return replace(ended, message=f"{step.id}: {ended.message}", result=None, result_path=None)
    return StepOutcome(Outcome.SUCCEEDED)
