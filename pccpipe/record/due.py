"""The runs that wait for a model, and the times when they are due."""

from __future__ import annotations

from pathlib import Path

from pccpipe.record.index import RunEntry, list_runs


def due_runs(runs_dir: Path, now: float) -> list[RunEntry]:
    """Return the runs of a folder that wait for a model and are due, the one that waits longest first."""
    due = [entry for entry in list_runs(runs_dir) if entry.due is not None and entry.due <= now]
    return sorted(due, key=lambda entry: entry.due or 0.0)
