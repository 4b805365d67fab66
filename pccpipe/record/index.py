"""Lists the runs on record. Reads only the first line and the last ones of each journal."""

from __future__ import annotations

import os
from pathlib import Path

from msgspec import Struct

from pccpipe.layout import EVENTS
from pccpipe.record.codec import UnreadableEventError, decode
from pccpipe.record.events import Event, RunEnded, RunResumed, RunStarted, RunStopped, RunWaiting
from pccpipe.record.lock import is_abandoned
from pccpipe.record.state import STOPPED, WAITING

_END = 64 * 1024
"""Bytes at a journal's end that are searched for the run's end."""


class RunEntry(Struct, frozen=True):
    """One run. `started` is None if the journal's beginning is unreadable, `ended` if the run has not ended."""

    run_id: str
    began_at: float | None
    started: RunStarted | None
    ended: RunEnded | None
    abandoned: bool = False
    """It has not ended, and its process is gone."""
    waiting: bool = False
    """It waits for a person."""
    stopped: bool = False
    """It could not go on, and keeps its workspace until it is resumed."""

    @property
    def status(self) -> str:
        """The run's status; `interrupted` if its process is gone and recorded no end."""
        if self.ended:
            return self.ended.status
        if self.started is None:
            return "unreadable"
        if self.waiting:
            return WAITING
        if self.stopped:
            return STOPPED
        return "interrupted" if self.abandoned else "running"


def list_runs(runs_dir: Path) -> list[RunEntry]:
    """Return the runs of a folder, the newest first; none if there is no such folder."""
    entries = [_entry(journal) for journal in runs_dir.glob(f"*/{EVENTS}")]
    return sorted(entries, key=lambda entry: entry.began_at or 0.0, reverse=True)


def has_ended(run_dir: Path) -> bool:
    """Say whether a run is over; False if there is no such run."""
    return _entry(run_dir / EVENTS).ended is not None


def _entry(journal: Path) -> RunEntry:
    run_id = journal.parent.name
    try:
        with journal.open("rb") as file:
            first = _read(file.readline())
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _END))
            last = [_read(line) for line in file.read(_END).splitlines()]
    except OSError:
        return RunEntry(run_id, None, None, None)
    started = first.what if first and isinstance(first.what, RunStarted) else None
    turns = [
        event.what
        for event in last
        if event and isinstance(event.what, RunEnded | RunStopped | RunWaiting | RunResumed)
    ]
    newest = turns[-1] if turns else None
    ended = newest if isinstance(newest, RunEnded) else None
    abandoned = not ended and is_abandoned(journal.parent)
    waiting, stopped = isinstance(newest, RunWaiting), isinstance(newest, RunStopped)
    return RunEntry(run_id, first.time if first else None, started, ended, abandoned, waiting, stopped)


def _read(line: bytes) -> Event | None:
    try:
        return decode(line)
    except UnreadableEventError:
        return None
