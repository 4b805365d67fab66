"""Retry a step after an outcome that its `retry:` names."""

from __future__ import annotations

import time
from collections.abc import Callable

from msgspec.structs import replace

from pccpipe.cancel import Deadline
from pccpipe.executor.context import RunContext, StepOutcome, WalkPosition, not_named_by
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
    """Call `attempt(number)` at most `retry.attempts` times, as long as `retry:` names the outcome and the exit code.

    A leak, or a workspace that must not be uploaded, is not retried: the next attempt would end in the same way. Nor is
    a place that stayed unreachable after the step had waited for it. The end of an attempt names the reason if an exit
    code or the time limit forbids another.
    """
    last = first + retry.attempts - 1
    for number in range(first, last + 1):
        ended = attempt(number)
        if number == last or context.cancel.requested:
            break
        if earlier := turn.consume(StepRetrying):
            # Wait for the rest of an earlier process's wait. A clock that was set back must not prolong it.
            wait = min(earlier.wait, max(0.0, turn.due.popleft() - time.time()))
            if not _waited(context, position, wait):
                break
            continue
        if ended.outcome not in retry.outcomes or ended.code in FINAL:
            break
        if ended.outcome is Outcome.FAILED and retry.exit_codes and not ended.failed_with(retry.exit_codes):
            return replace(ended, message=f"{ended.message} ({not_named_by('retry', ended)})")
        if ended.outcome is Outcome.UNAVAILABLE and is_away(context, ended.reason):
            break
        wait = retry.wait_before(number - first)
        if position.deadline and wait >= position.deadline.left:
            return _out_of_time(ended, wait, position.deadline)
        exit_code = ended.exit_code if ended.outcome is Outcome.FAILED and retry.exit_codes else None
        context.journal.append(StepRetrying(path, number + 1, last, ended.outcome, wait, exit_code))
        if not _waited(context, position, wait):
            break
    return ended


def _out_of_time(ended: StepOutcome, wait: float, deadline: Deadline) -> StepOutcome:
    if deadline.passed:
        return ended
    words = f"{deadline.owner} has {deadline.left:.1f} s left, and the wait before the next attempt is {wait:g} s"
    return replace(ended, message=f"{ended.message} (no retry: {words})")


def _waited(context: RunContext, position: WalkPosition, seconds: float) -> bool:
    """Wait before the next attempt; return whether to make it."""
    return not (seconds and context.cancel.wait(seconds)) and not (position.deadline and position.deadline.passed)
