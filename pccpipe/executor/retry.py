"""Retry a step after an outcome that its `retry:` names."""

from __future__ import annotations

import time
from collections.abc import Callable

from pccpipe.executor.context import RunContext, StepOutcome, WalkPosition
from pccpipe.executor.replay import Turn
from pccpipe.executor.waiting import is_away
from pccpipe.outcome import FINAL, Outcome
from pccpipe.record.events import StepRetrying
from pccpipe.spec.model import Retry


def with_retries(
    context: RunContext,
    position: WalkPosition,
    path: str,
    retry: Retry,
    attempt: Callable[[int], StepOutcome],
    turn: Turn,
    first: int = 1,
) -> StepOutcome:
    """Call `attempt(number)` at most `retry.attempts` times, as long as `retry:` names the outcome.

    A leak, or a workspace that must not be uploaded, is not retried: the next attempt would end in the same way. Nor is
    a place that stayed unreachable after the step had waited for it.
    """
    last = first + retry.attempts - 1
    for number in range(first, last + 1):
        ended = attempt(number)
        if number == last or ended.outcome not in retry.outcomes or context.cancel.requested or ended.code in FINAL:
            break
        if earlier := turn.consume(StepRetrying):
            # Wait for the rest of an earlier process's wait. A clock that was set back must not prolong it.
            wait = min(earlier.wait, max(0.0, turn.due.popleft() - time.time()))
            if not _waited(context, position, wait):
                break
            continue
        if ended.outcome is Outcome.UNAVAILABLE and is_away(context, ended.reason):
            break
        wait = retry.backoff * 2 ** (number - first)
        if position.deadline:
            wait = min(wait, position.deadline.left)
        context.journal.append(StepRetrying(path, number + 1, last, ended.outcome, wait))
        if not _waited(context, position, wait):
            break
    return ended


def _waited(context: RunContext, position: WalkPosition, seconds: float) -> bool:
    """Wait before the next attempt; return whether to make it."""
    return not (seconds and context.cancel.wait(seconds)) and not (position.deadline and position.deadline.passed)
