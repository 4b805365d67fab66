"""Share the turn of a background command between its own thread and the sequence around it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from msgspec.structs import replace

from pccpipe import limits
from pccpipe.cancel import Cancel
from pccpipe.errors import ActionError
from pccpipe.outcome import Place

WITH_GROUP = "group"
"""The one who asks for a background command's end when its group ends."""
NOT_READY = "not_ready"
"""The same when it was not ready in time."""
MOST = {Place.VM: 4, Place.LOCAL: 16}
"""The background commands of a run at one place. Each keeps one of its lanes, and steps need some, too."""


class Background:
    """One turn of a background command, as it and the sequence around it share it."""

    def __init__(self, cancel: Cancel, run: Cancel) -> None:
        self.cancel = cancel
        """Ends this command alone."""
        self.settled = threading.Event()
        """Set when it is ready, and when it is over."""
        self.followed = threading.Event()
        """Set when its thread follows it, and when it is over: before, a request to end it would abandon it."""
        self.is_ready = False
        self.ended_with_group = False
        self.words = ""
        """Says why it is not ready."""
        self._run = run

    @property
    def is_awaited(self) -> bool:
        """Say whether its end must be known: the run goes on after it, so its machine is waited for."""
        return not self._run.requested

    def ready(self) -> None:
        self.is_ready = True
        self.settled.set()

    def fail(self, words: str) -> None:
        """End the command, which is not ready."""
        self.words = words
        self.cancel.request(NOT_READY)


class Backgrounds:
    """The background commands of a run that run now. Safe from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: dict[str, Place] = {}

    @contextlib.contextmanager
    def one(self, path: str, place: Place, *, is_running: bool) -> Iterator[None]:
        """Count a command within the block. Raises ActionError if a place would have too many.

        Args:
            is_running: whether an earlier process of the run began it.
        """
        with self._lock:
            others = list(self._places.values()).count(place)
            if others >= MOST[place] and not is_running:
                limit = replace(limits.BACKGROUND, most=MOST[place])
                raise ActionError(limit.exceeded(), "lower `max_parallel:`, or start fewer of them")
            self._places[path] = place
        try:
            yield
        finally:
            with self._lock:
                del self._places[path]

    def at(self, place: Place) -> frozenset[str]:
        """Return the paths of those that run at a place."""
        with self._lock:
            return frozenset(path for path, one in self._places.items() if one is place)
