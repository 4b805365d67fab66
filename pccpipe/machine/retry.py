"""When to try again to reach a machine that has gone away, and when to stop."""

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

T = TypeVar("T")


class Backoff:
    """Backs off, with jitter. At most `limit` seconds after the first failure in a row it gives up."""

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
        """Sleep until the next attempt is due, but at most `seconds`; whether it is due."""
        left = self._next - time.monotonic()
        if left > 0:
            time.sleep(min(left, seconds))
        return left <= seconds

    def failed(self, error: Exception) -> None:
        """An attempt failed. Raises `Lost` when that was the last: the machine stays away, or is another's now."""
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


def unbroken(machine: Machine, do: Callable[[], T]) -> T:
    """Do what may be done twice; again when the connection breaks meanwhile. Raises `Unavailable`."""
    for last in (False, False, True):
        try:
            return do()
        except (ConnectionError, TimeoutError) as error:
            if last:
                raise Unavailable(Reason.SSH_SESSION_REFUSED, f"{machine.host} gave no shell: {error}") from error
    raise AssertionError("the last attempt returns or raises")
