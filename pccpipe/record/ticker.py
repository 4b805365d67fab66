"""Calls functions later, in one thread for all runs of a process: a server has many runs, and threads cost."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable

_IDLE = 5.0
"""Seconds without a call after which the thread ends."""


class Ticker:
    """Calls functions when they are due, one after the other, in a thread that exists while there are any.

    They must be quick, and raise nothing.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._is_running = False

    def call_in(self, seconds: float, function: Callable[[], None]) -> Timer:
        """Call `function` after this many seconds."""
        call = Timer(function)
        with self._changed:
            heapq.heappush(self._calls, (time.monotonic() + seconds, next(self._numbers), call))
            if self._is_running:
                self._changed.notify()
            else:
                self._is_running = True
                threading.Thread(target=self._run, name="pccpipe-ticker", daemon=True).start()
        return call

    def _run(self) -> None:
        while call := self._next():
            call.make()

    def _next(self) -> Timer | None:
        """Wait for the next call, and return it; None if there was none for a while: the thread ends."""
        with self._changed:
            until = time.monotonic() + _IDLE
            while True:
                now = time.monotonic()
                due = self._calls[0][0] if self._calls else until
                if due > now:
                    self._changed.wait(due - now)
                elif self._calls:
                    return heapq.heappop(self._calls)[2]
                else:
                    self._is_running = False
                    return None


class Timer:
    """A call to come."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function: Callable[[], None] | None = function

    def make(self) -> None:
        function = self._function
        if function:
            function()

    def cancel(self) -> None:
        """Prevent the call. Does not wait for one that has begun: it may wait for the caller's lock."""
        self._function = None


TICKER = Ticker()
