"""Writes run.json: the state of a run as a file, replaced whole, never half written."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from pccpipe.errors import RecordFull
from pccpipe.layout import RUN_JSON
from pccpipe.record.events import Event, InputGiven
from pccpipe.record.files import write_atomically
from pccpipe.record.room import Room, is_full
from pccpipe.record.run_events import RunEnded, RunStopped, RunWaiting
from pccpipe.record.state import RunState, state_of, state_text
from pccpipe.record.ticker import TICKER, Timer

WRITE_EVERY = 0.2
"""The least seconds between two writes of run.json during a run."""

_WRITTEN_AT_ONCE = (RunEnded, RunStopped, RunWaiting, InputGiven)
"""The process may end right after these."""


def catch_up(run_dir: Path, events: Iterable[Event]) -> None:
    """Replace run.json of a run whose process was killed after its last event; a full disk leaves it as it is."""
    text = state_text(state_of(events)).encode()
    path = run_dir / RUN_JSON
    with contextlib.suppress(OSError):
        if not path.is_file() or path.read_bytes() != text:
            write_atomically(path, text)


class StateFile:
    """A listener that folds events into `state` and writes run.json: at most every 0.2 s, and always at the end.

    It writes a delayed state even if no further event comes. On a full disk the file stays behind: the journal has all
    of it.
    """

    def __init__(self, run_dir: Path, state: RunState | None = None, room: Room | None = None) -> None:
        self._room = room or Room(run_dir, wait=0.0)
        self.state = state or RunState()
        self._path = run_dir / RUN_JSON
        self._lock = threading.Lock()
        self._next = 0.0
        self._later: Timer | None = None

    def __call__(self, event: Event) -> None:
        if not event.seq:
            return  # the journal does not have it either
        with self._lock:
            self.state.apply(event)
            wait = self._next - time.monotonic()
            if isinstance(event.what, _WRITTEN_AT_ONCE):
                with contextlib.suppress(RecordFull):
                    self._room.made(self._write)
            elif wait <= 0 and self._later is None:
                self._write_if_room()
            elif self._later is None:
                self._later = TICKER.call_in(wait, self._write_later)

    def _write_later(self) -> None:
        with self._lock:
            if self._later is None:
                return
            try:
                self._write()
            except OSError:
                # The next event retries it, where an error is reported.
                self._later, self._next = None, 0.0

    def _write_if_room(self) -> None:
        try:
            self._write()
        except OSError as error:
            if not is_full(error):
                raise

    def _write(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        began = time.monotonic()
        write_atomically(self._path, state_text(self.state).encode())
        # A large state is written less often, so that the work stays linear in the number of steps.
        self._next = time.monotonic() + max(WRITE_EVERY, 20 * (time.monotonic() - began))
