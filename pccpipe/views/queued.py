"""Shows a run through a queue: a reader that is slow, or reads nothing, delays no step and takes bounded memory."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from pccpipe.limits import VIEW_QUEUE
from pccpipe.outcome import Stream
from pccpipe.record.events import CommandEnded, Event, Output

PATIENCE = 1.0
"""Seconds for which output waits for a reader that is behind, before output is left out for it."""
NOTICE = 1.0
"""Seconds after which a reader that has not taken the end of a run is waited for."""
_EVENT = 500
"""Bytes that an event takes, besides its text."""


class View(Protocol):
    """Shows events, one at a time."""

    def __call__(self, event: Event) -> None: ...

    def close(self) -> None: ...


class QueuedView:
    """Gives events to a view in a thread of its own, which `close` ends.

    What does not fit into the queue is output: the oldest is left out, and a line counts it. The log has all of it.

    Args:
        on_wait: called by `close` when the reader has not taken everything yet, and is waited for.
        most: bytes of what waits.
    """

    def __init__(self, view: View, on_wait: Callable[[], None] = lambda: None, most: int = VIEW_QUEUE.most) -> None:
        self._view = view
        self._on_wait = on_wait
        self._most = most
        self._changed = threading.Condition()
        self._events: deque[Event] = deque()
        self._size = 0
        self._left_out: dict[str, int] = {}
        """Characters of each step's output that the view does not get."""
        self._behind_since: float | None = None
        self._error: Exception | None = None
        self._has_failed = False
        self._is_closed = False
        self._thread = threading.Thread(target=self._pass_on, name="pccpipe-view", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        """Queue an event. Raises, once, what the view has raised; it gets nothing after that."""
        with self._changed:
            self._raise_error()
            if self._has_failed:
                return
            if isinstance(event.what, Output) and self._size >= self._most:
                self._make_room()
            self._events.append(event)
            self._size += _size_of(event)
            self._changed.notify_all()

    def close(self) -> None:
        """Wait until the reader has taken everything, then close the view. Raises the view's own error."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join(NOTICE)
        if self._thread.is_alive():
            self._on_wait()
            self._thread.join()
        try:
            self._raise_error()
        except OSError:
            return  # the reader is gone: nobody is left who could be told

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error:
            raise error

    def _make_room(self) -> None:
        """Wait for the reader if it keeps up on the whole; else leave out the oldest output."""
        now = time.monotonic()
        if self._behind_since is None:
            self._behind_since = now
        until = self._behind_since + PATIENCE
        while self._size > self._most // 2 and not self._has_failed and now < until:
            self._changed.wait(until - now)
            now = time.monotonic()
        if self._size <= self._most // 2:
            self._behind_since = None
        elif self._size >= self._most:
            self._leave_out()

    def _leave_out(self) -> None:
        kept: deque[Event] = deque()
        for event in self._events:
            if self._size > self._most // 4 and isinstance(event.what, Output):
                self._size -= _size_of(event)
                step = event.what.step
                self._left_out[step] = self._left_out.get(step, 0) + len(event.what.text)
            else:
                kept.append(event)
        self._events = kept

    def _pass_on(self) -> None:
        """The view's thread."""
        try:
            while event := self._next():
                self._view(event)
            self._view.close()
        except Exception as error:  # noqa: BLE001 - given to the thread that brings the next event
            with self._changed:
                self._error, self._has_failed = error, True
                self._events.clear()
                self._size = 0
                self._changed.notify_all()

    def _next(self) -> Event | None:
        """The next event, or what says before it that output is left out; None at the end."""
        with self._changed:
            while not self._events:
                if self._is_closed:
                    return None
                self._behind_since = None
                self._changed.wait()
            event = self._events[0]
            if isinstance(event.what, Output | CommandEnded) and (count := self._left_out.pop(event.what.step, 0)):
                words = f"\n... {count:,} characters are not shown: this reader is too slow; the log has them ...\n"
                stream = event.what.stream if isinstance(event.what, Output) else Stream.STDOUT
                return Event(0, event.time, Output(event.what.step, stream, words))
            self._events.popleft()
            self._size -= _size_of(event)
            self._changed.notify_all()
            return event


def _size_of(event: Event) -> int:
    return _EVENT + (sys.getsizeof(event.what.text) if isinstance(event.what, Output) else 0)
