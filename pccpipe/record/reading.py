"""Reads a record for programs: events after a number, a piece of a log, and both while the run goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from msgspec import Struct

from pccpipe.errors import UsageError
from pccpipe.outcome import Stream
from pccpipe.record.events import Event
from pccpipe.record.journal import read_events
from pccpipe.record.lock import is_abandoned
from pccpipe.record.run_events import RunEnded
from pccpipe.record.state import load_state
from pccpipe.record.tail import GrowingJournal

LOG_PIECE = 1 << 20
"""Bytes of a log that one call returns at most, unless it asks for another number."""
PAUSE = 0.2
"""Seconds between two looks at a journal that grows."""


class LogPiece(Struct, frozen=True):
    """A piece of a step's log.

    Attributes:
        data: the bytes as the command wrote them, with secrets masked.
        next_offset: where the next piece begins.
        is_complete: whether nothing can follow: the log ends here, and its command has ended.
    """

    data: bytes
    next_offset: int
    is_complete: bool


def events_after(run_dir: Path, after: int) -> Iterator[Event]:
    """Yield the recorded events with a number above `after`. Raises UsageError if there is no such run."""
    return (event for event in read_events(run_dir) if event.seq > after)


class Follower:
    """Reads the events of a run as they come.

    Args:
        after: only events with a higher number.
    """

    def __init__(self, run_dir: Path, after: int) -> None:
        self._run_dir = run_dir
        self._after = after
        self._journal = GrowingJournal(run_dir)
        self.is_over = False
        """True if no event can follow: the run has ended, or no process runs it."""

    def read(self) -> list[Event]:
        """Return the events since the last call."""
        # Looked at first: what a process wrote before it went is read after that.
        is_left = is_abandoned(self._run_dir)
        events = self._journal.read()
        self.is_over = is_left or any(isinstance(event.what, RunEnded) for event in events)
        return [event for event in events if event.seq > self._after]


def follow_events(run_dir: Path, after: int) -> Iterator[Event]:
    """Yield the same, and then each new event, until none can follow."""
    follower = Follower(run_dir, after)
    while True:
        yield from follower.read()
        if follower.is_over:
            return
        time.sleep(PAUSE)


def log_piece(
    run_dir: Path, step: str, stream: Stream, attempt: int | None, offset: int, most: int = LOG_PIECE
) -> LogPiece:
    """Read a piece of a step's log.

    Args:
        step: its path, such as `iterate[2].build`.
        attempt: which of its attempts, from 1; None: the last one.
        offset: bytes from the log's beginning.

    Raises UsageError if there is no such run, step or attempt.
    """
    state = load_state(run_dir)
    if step not in state.steps:
        raise UsageError(
            f"run {run_dir.name}: it has no step {step!r}", f"steps: {', '.join(state.steps) or 'none yet'}"
        )
    attempts = [each for each in state.steps[step].attempts if attempt in (None, each.number)]
    if not attempts:
        if attempt is None:
            return LogPiece(b"", offset, state.steps[step].outcome is not None)
        raise UsageError(f"run {run_dir.name}: the step {step!r} has no attempt {attempt}")
    last = attempts[-1]
    name = (last.started.stdout if stream is Stream.STDOUT else last.started.stderr) if last.started else ""
    has_ended = last.outcome is not None
    data = _read(run_dir, name, offset, most) if name else b""
    return LogPiece(data, offset + len(data), has_ended and len(data) < most)


def _read(run_dir: Path, name: str, offset: int, most: int) -> bytes:
    """Read from a file of the record; a record that names another file has none."""
    path = run_dir / name
    if PurePosixPath(name).is_absolute() or not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(run_dir)):
        raise UsageError(f"run {run_dir.name}: the record names a log outside of its folder: {name}")
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(most)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
