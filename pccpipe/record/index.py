"""Lists the runs on record. Reads the first line and the last ones of a journal, and of an ended run only once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from pccpipe.layout import EVENTS
from pccpipe.record.codec import UnreadableEventError, decode
from pccpipe.record.ended_runs import EndedRun, load_ended, save_ended
from pccpipe.record.events import Event
from pccpipe.record.lock import is_abandoned
from pccpipe.record.run_events import RunEnded, RunResumed, RunStarted, RunStopped, RunWaiting
from pccpipe.record.state import STOPPED, WAITING, WAITING_FOR_MODEL

_END = 64 * 1024
"""Bytes at a journal's end that are searched for the run's end."""
_WORTH_WRITING = 32
"""Newly ended runs for which the file of ended runs is replaced, or one in 200 of those that it has."""
_TURNS = (RunEnded, RunStopped, RunWaiting, RunResumed)


class RunEntry(Struct, frozen=True):
    """One run. `started` is None if the journal's beginning is unreadable, `ended` if the run has not ended."""

    run_id: str
    began_at: float | None
    started: RunStarted | None
    ended: RunEnded | None
    abandoned: bool = False
    """It has not ended, and its process is gone."""
    waiting: bool = False
    """It waits for a person or a model."""
    due: float | None = None
    """The time from which `resume --due` continues a run that waits for a model, in seconds since the epoch."""
    stopped: bool = False
    """It could not go on, and keeps its workspace until it is resumed."""
    ended_at: float | None = None
    """The time of its end, in seconds since the epoch."""

    @property
    def status(self) -> str:
        """The run's status; `interrupted` if its process is gone and recorded no end."""
        if self.ended:
            return self.ended.status
        if self.started is None:
            return "unreadable"
        if self.waiting:
            return WAITING if self.due is None else WAITING_FOR_MODEL
        if self.stopped:
            return STOPPED
        return "interrupted" if self.abandoned else "running"


def list_runs(runs_dir: Path) -> list[RunEntry]:
    """Return the runs of a folder, the newest first; none if there is no such folder.

    Of runs that ended earlier it reads the file of ended runs, not the journals.
    """
    known = load_ended(runs_dir)
    entries: list[RunEntry] = []
    ended: dict[str, EndedRun] = {}
    missed = 0
    for run_id, journal, status in _journals(runs_dir):
        run = known.get(run_id)
        if run and run.mtime_ns == status.st_mtime_ns and run.size == status.st_size:
            entries.append(RunEntry(run_id, run.began_at, run.started, run.ended, ended_at=run.ended_at))
            ended[run_id] = run
            continue
        entry = _entry(Path(journal))
        entries.append(entry)
        if entry.ended and entry.ended_at is not None:
            missed += 1
            ended[run_id] = EndedRun(
                run_id,
                status.st_mtime_ns,
                status.st_size,
                entry.began_at,
                entry.started,
                entry.ended_at,
                entry.ended,
            )
    if missed >= max(_WORTH_WRITING, len(known) // 200):
        save_ended(runs_dir, ended)
    return _newest_first(entries)


def read_runs(runs_dir: Path) -> list[RunEntry]:
    """Return the same, from the journals alone, for callers that remove something."""
    return _newest_first([_entry(Path(journal)) for _, journal, _ in _journals(runs_dir)])


def read_entry(run_dir: Path) -> RunEntry:
    """Return one run, from its journal."""
    return _entry(run_dir / EVENTS)


def has_ended(run_dir: Path) -> bool:
    """Say whether a run is over; False if there is no such run."""
    return read_entry(run_dir).ended is not None


def _newest_first(entries: list[RunEntry]) -> list[RunEntry]:
    return sorted(entries, key=lambda entry: entry.began_at or 0.0, reverse=True)


def _journals(runs_dir: Path) -> Iterator[tuple[str, str, os.stat_result]]:
    """Yield each run's id, its journal and the journal's status."""
    try:
        fd = os.open(runs_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        for name in os.listdir(fd):  # noqa: PTH208 - pathlib takes no descriptor
            if name.startswith("."):
                continue
            try:
                # Relative to the folder, it takes half the time.
                status = os.stat(f"{name}/{EVENTS}", dir_fd=fd)
            except OSError:
                continue
            yield name, f"{runs_dir}/{name}/{EVENTS}", status
    finally:
        os.close(fd)


def _entry(journal: Path) -> RunEntry:
    run_id = journal.parent.name
    try:
        # Does not wait for a FIFO in its place.
        with open(journal, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as file:
            first = _read(file.readline())
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _END))
            last = [_read(line) for line in file.read(_END).splitlines()]
    except OSError:
        return RunEntry(run_id, None, None, None)
    started = first.what if first and isinstance(first.what, RunStarted) else None
    turns = [event for event in last if event and isinstance(event.what, _TURNS)]
    newest = turns[-1] if turns else None
    what = newest.what if newest else None
    ended = what if isinstance(what, RunEnded) else None
    return RunEntry(
        run_id,
        first.time if first else None,
        started,
        ended,
        abandoned=not ended and is_abandoned(journal.parent),
        waiting=isinstance(what, RunWaiting),
        due=what.due if isinstance(what, RunWaiting) else None,
        stopped=isinstance(what, RunStopped),
        ended_at=newest.time if newest and ended else None,
    )


def _read(line: bytes) -> Event | None:
    try:
        return decode(line)
    except UnreadableEventError:
        return None
