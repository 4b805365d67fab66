"""Wait for a place that the run has used and that is unreachable: sshd restarts in a second, dockerd in ten."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from msgspec import Struct

from pccpipe.cancel import Deadline
from pccpipe.errors import Broken, Unavailable
from pccpipe.executor.context import RunContext
from pccpipe.outcome import ENGINE_AWAY, VM_AWAY, Place, Reason
from pccpipe.record.events import Warned

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds in which a broken call is retried at a place that the run has not used. A step waits at least as long for a
place that the run has used, however long other steps waited before.
"""
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 5.0
WARN_AFTER = 10.0
"""Seconds after which the run warns that it waits."""


class Wait(Struct, frozen=True):
    """The limits of a step's wait for a place.

    Attributes:
        place: of the command, or of the copy that an action changes.
        path: of the step.
        deadline: of the step, and of the wait.
        in_doubt: says whether the command may already run there, and the reason hides whether it does.
        consented: whether a person allowed the fallback, which makes the wait short.
    """

    place: Place
    path: str
    deadline: Deadline | None = None
    in_doubt: Callable[[Reason], bool] = lambda _: False
    consented: bool = False


def is_away(context: RunContext, reason: Reason | None) -> bool:
    """Say whether the reason is of a place that the run has used and that may soon be back."""
    if reason in ENGINE_AWAY:
        return Place.CONTAINER in context.used
    return reason in VM_AWAY and (context.targets.had_vm or bool(context.used - {Place.LOCAL}))


def wait_for_place(context: RunContext, wait: Wait, do: Callable[[], T]) -> T:
    """Call `do`, which may be called twice; retry up to `lost_after` while a place that the run has used is away.

    A place that was never used is not waited for: a wrong address is an error at once. Raises `Unavailable`.
    """
    began = time.monotonic()
    pause = FIRST_PAUSE
    warned = False
    while True:
        try:
            done = do()
        except Unavailable as error:
            until = _until(context, wait, error, began)
            now = time.monotonic()
            if now + pause > until:
                raise
            if not warned and now - began > WARN_AFTER:
                warned = True
                words = f"{error.words} ({error.reason}); waiting for it for up to {until - now:.0f} s"
                context.journal.append(Warned(f"{words}; fix: {error.hint}" if error.hint else words, wait.path))
            if context.cancel.wait(pause):
                raise
            pause = min(2 * pause, LONGEST_PAUSE)
        else:
            if wait.place is not Place.LOCAL:
                context.absence.end()
            return done


def _until(context: RunContext, wait: Wait, error: Unavailable, began: float) -> float:
    """Return the end of the retries, on the monotonic clock."""
    away = is_away(context, error.reason) or wait.in_doubt(error.reason)
    until = 0.0
    if away and not wait.consented:
        lost_after = context.project.lost_after
        until = max(context.absence.since(time.monotonic()) + lost_after, began + min(PATIENCE, lost_after))
    elif away or isinstance(error, Broken):
        until = began + PATIENCE
    return min(until, wait.deadline.at) if wait.deadline else until
