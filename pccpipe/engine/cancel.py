"""The handle by which a run is ended early: by a signal, another thread, or the library's caller."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

GRACE = 10.0
"""Seconds between TERM and KILL, unless somebody is in a hurry."""
HURRIED_GRACE = 0.5


class Cancel:
    """Ask a run to end. Safe from any thread and from a signal handler's thread.

    The first `request` ends what runs (TERM, and KILL after the grace); the run's `always:` steps still run. `hurry`
    cuts the grace short, also that of an `always:` step that runs by then; containers are removed all the same.
    """

    def __init__(self) -> None:
        # Reentrant, because a signal handler runs in the main thread, which may be inside one of these methods.
        self._lock = threading.RLock()
        self._requested = threading.Event()
        self._watchers: list[Callable[[float], None]] = []
        self._shielded: list[Cancel] = []
        self.by = ""
        self.who = ""
        self.hurried = False

    @property
    def requested(self) -> bool:
        return self._requested.is_set()

    @property
    def grace(self) -> float:
        return HURRIED_GRACE if self.hurried else GRACE

    def request(self, by: str = "caller", who: str = "") -> None:
        """End the run.

        Args:
            by: how it is asked: a signal's name (`INT`, `TERM`, `HUP`) or a word of the caller's.
            who: the user and machine that asks, `root@vm`, where that is known.
        """
        with self._lock:
            if not self.requested:
                self.by, self.who = by, who
                self._requested.set()
            watchers = list(self._watchers)
        for watcher in watchers:
            watcher(self.grace)

    def hurry(self) -> None:
        """Cut the grace period of whatever is ending now; also requests, if nobody did."""
        with self._lock:
            self.hurried = True
            shielded = list(self._shielded)
        self.request()
        for cancel in shielded:
            cancel.hurry()

    @contextmanager
    def shield(self) -> Iterator[Cancel]:
        """Within the block, a handle that only a `hurry` from now on requests: for a step that must run after a
        cancel.
        """
        inner = Cancel()
        with self._lock:
            self._shielded.append(inner)
        try:
            yield inner
        finally:
            with self._lock:
                self._shielded.remove(inner)

    def wait(self, seconds: float) -> bool:
        """Sleep for `seconds`, or until a request; True if there is one."""
        return self._requested.wait(seconds)

    @contextmanager
    def watched_by(self, watcher: Callable[[float], None]) -> Iterator[None]:
        """Within the block, call `watcher(grace)` at each request, and at once if there was one before."""
        with self._lock:
            self._watchers.append(watcher)
            late = self.requested
        if late:
            watcher(self.grace)
        try:
            yield
        finally:
            with self._lock:
                self._watchers.remove(watcher)
