"""Tries of a step: again after an outcome that its `retry:` names."""

from __future__ import annotations

import time
from collections.abc import Callable

from pccpipe.executor.context import Position, RunContext, StepOutcome
from pccpipe.executor.replay import Turn
from pccpipe.executor.waiting import is_away
from pccpipe.outcome import FINAL, Outcome
from pccpipe.record.events import StepRetrying
from pccpipe.spec.model import Retry


def with_retries(
    context: RunContext,
    position: Position,
    path: str,
    retry: Retry,
    attempt: Callable[[int], StepOutcome],
    turn: Turn,
    first: int = 1,
) -> StepOutcome:
    """Call `attempt(number)` until its outcome is none to try again after, at most `retry.attempts` times.

    A leak, or a workspace that may not go up, is none: a second try could only do the same. Nor is a place that was
    waited for and stayed away.
    """
    last = first + retry.attempts - 1
    for number in range(first, last + 1):
        ended = attempt(number)
        if number == last or ended.outcome not in retry.outcomes or context.cancel.requested or ended.code in FINAL:
            break
        if earlier := turn.consume(StepRetrying):
            # The rest of a wait that the process before did not end. A clock that was set back makes it no longer.
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


def _waited(context: RunContext, position: Position, seconds: float) -> bool:
    """Wait before the next try; say whether there is to be one."""
    return not (seconds and context.cancel.wait(seconds)) and not (position.deadline and position.deadline.passed)
