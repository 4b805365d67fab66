"""Waits for a place that the run has used and that is away: sshd restarts within a second, dockerd within ten."""

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
"""Seconds in which a call that broke half way is made again at a place that the run has not used, and for which a step
waits at least for one that it has, however long others waited for it before.
"""
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 5.0
WARN_AFTER = 10.0
"""Seconds after which the run says for what it waits."""


class Wait(Struct, frozen=True):
    """How long a step waits for a place.

    Attributes:
        place: of the command, or of the copy that an action works on.
        path: of the step.
        deadline: of the step; it waits no longer than that.
        in_doubt: says whether its command may have begun there already, and such a reason keeps that from being known.
        consented: a person let the step fall back, so it does not wait for long.
    """

    place: Place
    path: str
    deadline: Deadline | None = None
    in_doubt: Callable[[Reason], bool] = lambda _: False
    consented: bool = False


def is_away(context: RunContext, reason: Reason | None) -> bool:
    """Say whether this is the reason of a place that the run has used, and that may be back in a moment."""
    if reason in ENGINE_AWAY:
        return Place.CONTAINER in context.used
    return reason in VM_AWAY and (context.targets.had_vm or bool(context.used - {Place.LOCAL}))


def wait_for_place(context: RunContext, wait: Wait, do: Callable[[], T]) -> T:
    """Do what may be done twice; again while the place is away, if this run has used it, up to `lost_after`.

    A place that was never used is not waited for: a wrong address is an error at once. Raises `Unavailable`.
    """
    began = time.monotonic()
    pause = FIRST_PAUSE
    warned = False
    while True:
        try:
            done = do()
        except Unavailable as no:
            until = _until(context, wait, no, began)
            now = time.monotonic()
            if now + pause > until:
                raise
            if not warned and now - began > WARN_AFTER:
                warned = True
                words = f"{no.words} ({no.reason}); waiting for it, {until - now:.0f} s more at most"
                context.journal.append(Warned(f"{words}; fix: {no.hint}" if no.hint else words, wait.path))
            if context.cancel.wait(pause):
                raise
            pause = min(2 * pause, LONGEST_PAUSE)
        else:
            if wait.place is not Place.LOCAL:
                context.absence.end()
            return done


def _until(context: RunContext, wait: Wait, no: Unavailable, began: float) -> float:
    """Until when it is tried again, on the monotonic clock."""
    away = is_away(context, no.reason) or wait.in_doubt(no.reason)
    until = 0.0
    if away and not wait.consented:
        lost_after = context.project.lost_after
        until = max(context.absence.since(time.monotonic()) + lost_after, began + min(PATIENCE, lost_after))
    elif away or isinstance(no, Broken):
        until = began + PATIENCE
    return min(until, wait.deadline.at) if wait.deadline else until
