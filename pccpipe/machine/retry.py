"""Retries calls to a machine whose connection breaks, and says when to stop."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from pccpipe.errors import Fenced, Lost, Unavailable
from pccpipe.machine.base import Machine
from pccpipe.outcome import Reason

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 10.0

DISCONNECTED = (ConnectionError, TimeoutError)
"""The errors of a call whose connection breaks or falls silent before the answer: the call may have had its effect."""
UNREACHABLE = (Unavailable, *DISCONNECTED)
"""The errors of a call to a machine that is unavailable, or that goes away during the call."""

T = TypeVar("T")


class Backoff:
    """Spaces out retries with growing, random pauses, and gives up `limit` seconds after the first failure in a row."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._since: float | None = None
        self._next = 0.0
        self._pause = FIRST_PAUSE

    @property
    def due_in(self) -> float:
        """Seconds until the next attempt is due."""
        return max(0.0, self._next - time.monotonic())

    def wait(self, seconds: float) -> bool:
        """Sleep until the next attempt is due, but at most `seconds`; return whether it is due."""
        left = self.due_in
        if left > 0:
            time.sleep(min(left, seconds))
        return left <= seconds

    def failed(self, error: Exception) -> None:
        """Count a failed attempt. Raises `Lost` if it was the last one, or if another run took the machine over."""
        if isinstance(error, Fenced):
            raise Lost(error.words) from error
        now = time.monotonic()
        self._since = self._since or now
        if now - self._since >= self._limit:
            words = f"the machine did not answer for {now - self._since:.0f} s (lost_after: {self._limit:g}s)"
            raise Lost(f"{words}, so how its command ended is unknown: {error}; next: pccpipe doctor") from error
        self._next = now + self._pause * random.uniform(0.5, 1.0)
        self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def succeeded(self) -> None:
        self.__init__(self._limit)  # type: ignore[misc]


def retrying(
    do: Callable[[], T],
    limit: float,
    *,
    may_retry: Callable[[Exception], bool] = lambda _: True,
    wait: Callable[[float], object] = time.sleep,
) -> T:
    """Do something that is safe to do twice, and retry with pauses while the machine is unreachable.

    Args:
        limit: seconds of failures in a row after which it raises `Lost`. It raises `Lost` at once for `Fenced`.
        may_retry: whether to retry after an error; otherwise it raises the error.
        wait: sleeps between two attempts; it may raise.
    """
    backoff = Backoff(limit)
    while True:
        wait(backoff.due_in)
        try:
            return do()
        except UNREACHABLE as error:
            if not may_retry(error):
                raise
            backoff.failed(error)


def repeating(do: Callable[[], T], times: int) -> T:
    """Do something that is safe to do twice, and repeat it at once if its connection breaks, `times` times in all."""
    for left in reversed(range(times)):
        try:
            return do()
        except DISCONNECTED:
            if not left:
                raise
    raise AssertionError("the last attempt returns or raises")


def reconnecting(machine: Machine, do: Callable[[], T]) -> T:
    """Repeat a call to a machine over new connections, three times in all. Raises `Unavailable`."""
    try:
        return repeating(do, 3)
    except DISCONNECTED as error:
        raise Unavailable(Reason.SSH_SESSION_REFUSED, f"{machine.host} gave no shell: {error}") from error
