"""Writes events.jsonl: append-only, synced, one event a line. Notifies the listeners of each event."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pccpipe.errors import PccpipeError, RecordFull, UsageError
from pccpipe.layout import EVENTS
from pccpipe.record.codec import UnreadableEventError, decode, encode
from pccpipe.record.event_log import logger_in_use
from pccpipe.record.events import (
    ActionDone,
    CommandEnded,
    Event,
    Happening,
    LiveEvent,
    RoundStarted,
    StepStarted,
    Warned,
)
from pccpipe.record.files import sync, sync_through
from pccpipe.record.rate import Rate
from pccpipe.record.room import Room

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Listener = Callable[[Event], None]

_SYNCED_BY_THE_NEXT = (StepStarted, RoundStarted, ActionDone, CommandEnded)
"""Nothing begins after one of these before another event, whose sync (0.3 ms) includes them.

Killed in between, pccpipe loses none of them: they are with the kernel.
"""


def check_run_id(run_id: str) -> None:
    """Raise UsageError for an id that cannot be the name of a folder on every system."""
    if not RUN_ID.fullmatch(run_id):
        raise UsageError(
            f"invalid run id {run_id!r}",
            "use letters, digits, `.`, `_` and `-`, at most 64, beginning with a letter or digit",
        )


def make_run_dir(run_dir: Path) -> None:
    """Make a run's folder. Raises UsageError if it exists."""
    check_run_id(run_dir.name)
    try:
        run_dir.parent.mkdir(parents=True, exist_ok=True)
        run_dir.mkdir(mode=0o700)
    except FileExistsError as error:
        if error.filename != str(run_dir):
            raise UsageError(f"cannot make the run's folder {run_dir}: {error.filename} is not a folder") from error
        raise UsageError(
            f"run {run_dir.name} exists already, in {run_dir}",
            "choose another --run-id",
        ) from None
    except OSError as error:
        raise UsageError(f"cannot make the run's folder {run_dir}: {error.strerror}") from error


class Journal:
    """A run's journal. Safe from many threads. Listeners get one event at a time, after it is written.

    Args:
        run_dir: the run's folder; an existing journal continues after its last whole line.
        listeners: called in this order. One that raises does not break the run: its first error becomes a `Warned`.
        mask: applied to each text, so that no secret gets into an event.
        room: waits for room on a full disk.
    """

    def __init__(
        self,
        run_dir: Path,
        listeners: Sequence[Listener] = (),
        mask: Callable[[str], str] = str,
        room: Room | None = None,
    ) -> None:
        self._room = room or Room(run_dir, wait=0.0)
        # Reentrant: a listener may cancel the run, which is an event, too.
        self._lock = threading.RLock()
        self._listeners = tuple(listeners)
        self._failed: set[int] = set()
        self._when_synced: list[Callable[[], None]] = []
        self._synced: list[Callable[[], None]] = []
        self._rate = Rate()
        self._mask = mask
        self._path = run_dir / EVENTS
        self._fd = self._opened()
        self._seq = _last_seq(run_dir) if os.fstat(self._fd).st_size else 0
        self._end_torn_line()

    @staticmethod
    def create(run_dir: Path, listeners: Sequence[Listener] = (), mask: Callable[[str], str] = str) -> Journal:
        """Make a run's folder and the journal in it. Raises UsageError."""
        make_run_dir(run_dir)
        return Journal(run_dir, listeners, mask)

    def append(self, happening: Happening, when_synced: Callable[[], None] | None = None) -> Event:
        """Number and stamp an event, write it, and notify the listeners.

        Raises PccpipeError if it cannot be written: RecordFull for a full disk, and for every event from then on.
        `Rate` may hold back an event of a frequent kind, which then has the number 0.

        Args:
            when_synced: called once the event would survive a power cut: it may discard other copies of the facts.
        """
        with self._lock:
            self._room.check()
            if when_synced:
                self._when_synced.append(when_synced)
            self._keep_in_place()
            event = Event(0, time.time(), happening)
            for what in self._rate.pass_on(happening):
                event = self._append_one(what)
            if waited := self._room.pop_waited():
                words = f"the disk of the run's record was full: the run waited {waited:.0f} s for space"
                self._append_one(Warned(words))
            synced, self._synced = self._synced, []
        for call in synced:
            call()
        return event

    def notify(self, happening: Happening) -> None:
        """Notify the listeners of an event that is not written: its number is 0."""
        with self._lock:
            self._notify(Event(0, time.time(), happening))

    def _append_one(self, happening: Happening) -> Event:
        event = Event(0 if isinstance(happening, LiveEvent) else self._seq + 1, time.time(), happening)
        if event.seq:
            event = self._kept(event)
            self._seq = event.seq
        self._notify(event)
        return event

    def _notify(self, event: Event) -> None:
        for number, listener in enumerate(self._listeners):
            try:
                listener(event)
            except Exception as error:  # noqa: BLE001 - listeners are code of others
                self._report_failure(number, listener, error)

    def _report_failure(self, number: int, listener: Listener, error: Exception) -> None:
        if number in self._failed:
            return
        self._failed.add(number)
        name = getattr(listener, "__qualname__", type(listener).__qualname__)
        if logger := logger_in_use():
            run_id = self._path.parent.name
            logger.error("run %s: the listener %s failed", run_id, name, exc_info=error, extra={"run_id": run_id})
        self.append(Warned(f"the listener {name} failed: {type(error).__name__}: {error}"))

    def _kept(self, event: Event) -> Event:
        """Write an event, and return it as it is on disk."""
        # Mask each text, not the line: a short secret may be a key of the line, and a long one is escaped in it.
        had_secret = False

        def mask(text: str) -> str:
            nonlocal had_secret
            masked = self._mask(text)
            had_secret = had_secret or masked != text
            return masked

        line = encode(event, mask)
        self._write(line)
        if not isinstance(event.what, _SYNCED_BY_THE_NEXT):
            self._sync()
        return decode(line) if had_secret else event

    def _opened(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)

    def _keep_in_place(self) -> None:
        """Write the journal again if it was removed: the kernel still has its content."""
        if os.fstat(self._fd).st_nlink:
            return
        try:
            written = os.pread(self._fd, os.fstat(self._fd).st_size, 0)
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            removed, self._fd = self._fd, self._opened()
            os.close(removed)
        except OSError as error:
            raise PccpipeError(f"the run's folder {self._path.parent} was removed: {error.strerror}") from error
        self._write(written)
        self.append(Warned(f"the run's folder {self._path.parent} was removed during the run, and its logs with it"))

    def _write(self, line: bytes) -> None:
        size = os.fstat(self._fd).st_size
        try:
            left = memoryview(line)
            while left:
                left = left[self._room.made(functools.partial(os.write, self._fd, left)) :]
        except RecordFull:
            # The next line, of any process, must not continue this half.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, size)
            raise
        except OSError as error:
            raise PccpipeError(f"cannot write the run's journal: {error.strerror}") from error

    def _sync(self) -> None:
        try:
            # After this the other copies may be discarded.
            bring = sync_through if self._when_synced else sync
            self._room.made(lambda: bring(self._fd))
        except OSError as error:
            raise PccpipeError(f"cannot write the run's journal: {error.strerror}") from error
        self._synced += self._when_synced
        self._when_synced.clear()

    def _end_torn_line(self) -> None:
        """End a half line that a crash left: the next one must not continue it."""
        size = os.fstat(self._fd).st_size
        if size and os.pread(self._fd, 1, size - 1) != b"\n":
            self._write(b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def read_events(run_dir: Path) -> Iterator[Event]:
    """Yield the run's events, in order, without torn lines and kinds of a newer version.

    Raises UsageError if there is no such run, or its journal can't be read.
    """
    try:
        with (run_dir / EVENTS).open("rb") as file:
            for line in file:
                try:
                    yield decode(line)
                except UnreadableEventError:
                    continue
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(run_dir) from None
    except OSError as error:
        raise UsageError(f"cannot read {run_dir / EVENTS}: {error.strerror}") from error


def refuse_missing(run_dir: Path) -> None:
    """Raise UsageError if there is no such run."""
    if not (run_dir / EVENTS).is_file():
        raise _missing(run_dir)


def _missing(run_dir: Path) -> UsageError:
    return UsageError(f"there is no run {run_dir.name!r} in {run_dir.parent}")


def _last_seq(run_dir: Path) -> int:
    return max((event.seq for event in read_events(run_dir)), default=0)
