"""Tries of a step: again after an outcome that its `retry:` names."""

from __future__ import annotations

import time
from collections.abc import Callable

from pccpipe.executor.context import Position, RunContext, StepOutcome
from pccpipe.executor.patience import is_away
from pccpipe.executor.replay import Turn
from pccpipe.outcome import FINAL, Outcome
from pccpipe.record.events import StepRetrying
from pccpipe.spec.model import Retry


def with_retries(
    parts: RunContext,
    here: Position,
    path: str,
    retry: Retry,
    attempt: Callable[[int], StepOutcome],
    visit: Turn,
    first: int = 1,
) -> StepOutcome:
    """Call `attempt(number)` until its outcome is none to try again after, at most `retry.attempts` times.

    A leak, or a workspace that may not go up, is none: a second try could only do the same. Nor is a place that was
    waited for and stayed away.
    """
    last = first + retry.attempts - 1
    for number in range(first, last + 1):
        ended = attempt(number)
        if number == last or ended.outcome not in retry.outcomes or parts.cancel.requested or ended.code in FINAL:
            break
        if earlier := visit.take(StepRetrying):
            # The rest of a wait that the process before did not end. A clock that was set back makes it no longer.
            wait = min(earlier.wait, max(0.0, visit.due.popleft() - time.time()))
            if not _waited(parts, here, wait):
                break
            continue
        if ended.outcome is Outcome.UNAVAILABLE and is_away(parts, ended.reason):
            break
        wait = retry.backoff * 2 ** (number - first)
        if here.deadline:
            wait = min(wait, here.deadline.left)
        parts.journal.append(StepRetrying(path, number + 1, last, ended.outcome, wait))
        if not _waited(parts, here, wait):
            break
    return ended


def _waited(parts: RunContext, here: Position, seconds: float) -> bool:
    """Wait before the next try; say whether there is to be one."""
    return not (seconds and parts.cancel.wait(seconds)) and not (here.deadline and here.deadline.passed)
