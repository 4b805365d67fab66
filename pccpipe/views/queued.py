"""Shows a run through a queue: a slow reader delays no step, and the queue's memory has a limit."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from pccpipe.limits import VIEW_QUEUE
from pccpipe.outcome import ActionKind, Stream
from pccpipe.record.agent_events import Activity
from pccpipe.record.events import CommandEnded, Event, Happening, LiveEvent, Output

PATIENCE = 1.0
"""Seconds for which output waits for a slow reader, before the queue drops output."""
NOTICE = 1.0
"""Seconds after the run's end, after which `on_wait` is called for a slow reader."""
_EVENT = 500
"""Bytes of an event, besides its text."""


class View(Protocol):
    """Show events, one at a time."""

    def __call__(self, event: Event) -> None: ...

    def close(self) -> None: ...


class QueuedView:
    """Give events to a view in a thread of its own, which `close` ends.

    If the queue is full, it drops the oldest output, and a line counts the characters. The log has all of them.

    Args:
        on_wait: called by `close` when it has to wait for the reader.
        most: bytes of waiting events.
    """

    def __init__(self, view: View, on_wait: Callable[[], None] = lambda: None, most: int = VIEW_QUEUE.most) -> None:
        self._view = view
        self._on_wait = on_wait
        self._most = most
        self._changed = threading.Condition()
        self._events: deque[Event] = deque()
        self._size = 0
        self._dropped: dict[tuple[str, type[LiveEvent]], int] = {}
        """Characters of each step's output, and of its agent's actions, that the queue dropped."""
        self._behind_since: float | None = None
        self._error: Exception | None = None
        self._has_failed = False
        self._is_closed = False
        self._thread = threading.Thread(target=self._pass_on, name="pccpipe-view", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        """Queue an event. Raises the view's error once; the view gets no event after that."""
        with self._changed:
            self._raise_error()
            if self._has_failed:
                return
            if isinstance(event.what, LiveEvent) and self._size >= self._most:
                self._make_room()
            self._events.append(event)
            self._size += _size_of(event)
            self._changed.notify_all()

    def close(self) -> None:
        """Wait until the reader has everything, then close the view. Raises the view's own error."""
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
            return  # the reader is gone, so no one would see the error

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error:
            raise error

    def _make_room(self) -> None:
        """Wait for a reader that usually keeps up; else drop the oldest output."""
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
            self._drop_output()

    def _drop_output(self) -> None:
        kept: deque[Event] = deque()
        for event in self._events:
            if self._size > self._most // 4 and isinstance(event.what, LiveEvent):
                self._size -= _size_of(event)
                of = event.what.step, type(event.what)
                self._dropped[of] = self._dropped.get(of, 0) + len(event.what.text)
            else:
                kept.append(event)
        self._events = kept

    def _pass_on(self) -> None:
        """Pass events on, in the view's thread."""
        try:
            while event := self._next():
                self._view(event)
            self._view.close()
        except Exception as error:  # noqa: BLE001 - raised to the caller with its next event
            with self._changed:
                self._error, self._has_failed = error, True
                self._events.clear()
                self._size = 0
                self._changed.notify_all()

    def _next(self) -> Event | None:
        """Return the next event, or before it a line about dropped output; None at the end."""
        with self._changed:
            while not self._events:
                if self._is_closed:
                    return None
                self._behind_since = None
                self._changed.wait()
            event = self._events[0]
            if notice := self._notice(event.what):
                return Event(0, event.time, notice)
            self._events.popleft()
            self._size -= _size_of(event)
            self._changed.notify_all()
            return event

    def _notice(self, what: Happening) -> LiveEvent | None:
        """Return a line about what was dropped before an event; None if nothing was."""
        words = "characters are not shown: this reader is too slow;"
        if isinstance(what, Output | CommandEnded) and (count := self._dropped.pop((what.step, Output), 0)):
            stream = what.stream if isinstance(what, Output) else Stream.STDOUT
            return Output(what.step, stream, f"\n... {count:,} {words} the log has them ...\n")
        if isinstance(what, LiveEvent | CommandEnded) and (count := self._dropped.pop((what.step, Activity), 0)):
            text = f"... {count:,} {words} `pccpipe logs --agent` has them ..."
            return Activity(what.step, ActionKind.OUTPUT, text)
        return None


def _size_of(event: Event) -> int:
    return _EVENT + (sys.getsizeof(event.what.text) if isinstance(event.what, LiveEvent) else 0)
