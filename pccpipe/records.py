"""The records of runs, for programs: a list of runs, their state, events and logs, and their removal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pccpipe.errors import UsageError
from pccpipe.layout import EVENTS, RUNS
from pccpipe.outcome import Stream
from pccpipe.record import index
from pccpipe.record.events import Event
from pccpipe.record.index import RunEntry
from pccpipe.record.journal import check_run_id
from pccpipe.record.reading import LOG_PIECE, LogPiece, events_after, follow_events, log_piece
from pccpipe.record.state import RunState, load_state

if TYPE_CHECKING:
    from pccpipe.gc.delete import RemovedRun
    from pccpipe.gc.prune import PrunedRun
    from pccpipe.spec.project_model import Project


def list_runs(*, runs_dir: str | Path | None = None) -> list[RunEntry]:
    """List the runs on record, the newest first; none if there is no such folder."""
    return index.list_runs(runs_folder(runs_dir))


def get_run(run_id: str, *, runs_dir: str | Path | None = None) -> RunState:
    """Return the state of a run; its `to_json()` is run.json. Raises UsageError if there is no such run."""
    return load_state(record_of(run_id, runs_dir=runs_dir))


def read_events(run_id: str, *, after: int = 0, runs_dir: str | Path | None = None) -> Iterator[Event]:
    """Yield the recorded events of a run.

    Args:
        after: only events with a higher number (`Event.seq`).

    Raises UsageError if there is no such run.
    """
    return events_after(record_of(run_id, runs_dir=runs_dir), after)


def follow(run_id: str, *, after: int = 0, runs_dir: str | Path | None = None) -> Iterator[Event]:
    """Yield the events of a run, those on record and each new one, until it ends.

    It also ends if the run waits for a person or a model, was stopped or lost its process: no event comes until a
    `resume`.
    `pccpipe.aio.follow` is the same for asyncio.

    Raises UsageError if there is no such run.
    """
    return follow_events(record_of(run_id, runs_dir=runs_dir), after)


def read_log(
    run_id: str,
    step: str,
    *,
    stream: Stream = Stream.STDOUT,
    attempt: int | None = None,
    offset: int = 0,
    most: int = LOG_PIECE,
    runs_dir: str | Path | None = None,
) -> LogPiece:
    """Read a piece of the output of a step's command, also while it runs.

    Args:
        step: its path, such as `iterate[2].build`.
        stream: stdout or stderr.
        attempt: the number of the attempt, from 1; default: the last one.
        offset: bytes from the log's beginning; `LogPiece.next_offset` of the piece before.
        most: the most bytes to return.

    Raises UsageError if there is no such run, step or attempt.
    """
    return log_piece(record_of(run_id, runs_dir=runs_dir), step, stream, attempt, offset, most)


def delete_run(run_id: str, *, runs_dir: str | Path | None = None, force: bool = False) -> RemovedRun:
    """Remove a run that has ended: its record, and what is left of it on this machine.

    The record goes with changes of an agent that exist nowhere else; the answer names them.

    Args:
        force: also a run that can be resumed.

    Raises UsageError if there is no such run, it has not ended, or a process here runs it.
    """
    from pccpipe.gc.delete import delete_record

    record = record_of(run_id, runs_dir=runs_dir)
    return delete_record(run_id, record.parent, force=force)


def prune(project: Project, *, runs_dir: str | Path | None = None, dry_run: bool = False) -> tuple[PrunedRun, ...]:
    """Remove the records of a project's ended runs beyond its `keep:`; return those beyond it, the newest first.

    A record with the only copy of an agent's work stays, unless `keep: only_copies:` allows its removal.

    Raises UsageError if `keep:` has neither days nor runs.
    """
    from pccpipe.gc.prune import prune_records

    return prune_records(project, runs_folder(runs_dir), dry_run=dry_run)


def record_of(run_id: str, *, runs_dir: str | Path | None = None) -> Path:
    """Return the folder of a run on record. Raises UsageError if there is no such run."""
    check_run_id(run_id)
    record = runs_folder(runs_dir) / run_id
    if not (record / EVENTS).is_file():
        raise UsageError(f"there is no run {run_id!r} in {record.parent}")
    return record


def runs_folder(given: str | Path | None) -> Path:
    """Return the folder of records that a call means; the default is in the current folder."""
    return Path(given or RUNS).absolute()
