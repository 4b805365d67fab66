"""The runs that wait for a model, and the times when they are due."""

from __future__ import annotations

from pathlib import Path

from pccpipe.errors import UsageError
from pccpipe.record.index import RunEntry, list_runs
from pccpipe.record.lock import was_held_here
from pccpipe.record.state import RunState


def due_runs(runs_dir: Path, now: float) -> list[RunEntry]:
    """Return the runs of a folder that wait for a model and are due, the one that waits longest first."""
    due = [entry for entry in list_runs(runs_dir) if entry.due is not None and entry.due <= now]
    return sorted(due, key=lambda entry: entry.due or 0.0)


def is_due(state: RunState, now: float) -> bool:
    """Say whether a run waits for a model and can continue."""
    return state.ended_at is None and state.due is not None and state.due <= now


def refuse_strange(record: Path) -> None:
    """Raise UsageError unless this machine ran the run last.

    The folder of records often lies in a repository: its authors may put a record there that runs their commands.
    """
    if not was_held_here(record):
        words = f"run {record.name}: this machine did not run it last, so no timer continues it"
        raise UsageError(words, f"if it is yours: pccpipe resume {record.name}")
