"""events.jsonl: append-only, synced, one event a line; and who is told of each event."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pccpipe.errors import PccpipeError, UsageError
from pccpipe.record.codec import UnreadableEvent, decode, encode
from pccpipe.record.events import Event, Happening, Output

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
EVENTS = "events.jsonl"

Listener = Callable[[Event], None]


def check_run_id(run_id: str) -> None:
    """Raises UsageError for an id that cannot be a folder's name everywhere."""
    if not RUN_ID.fullmatch(run_id):
        raise UsageError(
            f"the run id {run_id!r} will not do",
            "use letters, digits, `.`, `_` and `-`, at most 64, beginning with a letter or digit",
        )


class Journal:
    """A run's journal. Safe from many threads; listeners are called one event at a time, after it is on disk.

    Args:
        listeners: called in this order; what one raises ends the run as a bug of it, so they raise nothing.
        mask: applied to each line, so that no secret is in an event, for whatever part of it brought one.
    """

    def __init__(
        self, run_dir: Path, listeners: Sequence[Listener] = (), mask: Callable[[bytes], bytes] = bytes
    ) -> None:
        # Reentrant, because a listener may cancel the run, and that is an event as well.
        self._lock = threading.RLock()
        self._listeners = tuple(listeners)
        self._mask = mask
        self._seq = 0
        self._fd = os.open(run_dir / EVENTS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    @staticmethod
    def create(
        run_dir: Path, listeners: Sequence[Listener] = (), mask: Callable[[bytes], bytes] = bytes
    ) -> Journal:
        """Make the run's folder, which nobody may have made before, and its journal. Raises UsageError."""
        check_run_id(run_dir.name)
        try:
            run_dir.parent.mkdir(parents=True, exist_ok=True)
            run_dir.mkdir(mode=0o700)
        except FileExistsError:
            raise UsageError(
                f"there is a run {run_dir.name!r} already, in {run_dir}",
                "give this one another --run-id",
            ) from None
        except OSError as error:
            raise UsageError(f"cannot make the run's folder {run_dir}: {error.strerror}") from error
        return Journal(run_dir, listeners, mask)

    def append(self, happening: Happening) -> Event:
        """Number and stamp an event, bring it to the disk, tell the listeners. Raises PccpipeError if it can't be written."""
        with self._lock:
            event = Event(0 if isinstance(happening, Output) else self._seq + 1, time.time(), happening)
            if event.seq:
                event = self._kept(event)
                self._seq = event.seq
            for listener in self._listeners:
                listener(event)
        return event

    def _kept(self, event: Event) -> Event:
        """The event as it is on disk."""
        line = encode(event)
        masked = self._mask(line)
        self._write(masked)
        return event if masked == line else decode(masked)

    def _write(self, line: bytes) -> None:
        try:
            written = os.write(self._fd, line)
            if written < len(line):
                os.write(self._fd, line[written:])
            os.fdatasync(self._fd)
        except OSError as error:
            raise PccpipeError(f"the run's journal cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def read_events(run_dir: Path) -> Iterator[Event]:
    """The run's events, in order. A torn last line, and kinds that a newer version wrote, are passed over."""
    with (run_dir / EVENTS).open("rb") as file:
        for line in file:
            try:
                yield decode(line)
            except UnreadableEvent:
                continue
