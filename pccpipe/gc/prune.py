"""Removes the records of ended runs that a project's `keep:` does not keep."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from pccpipe.errors import UsageError
from pccpipe.gc.delete import OnlyCopies, delete_record, only_copies, remove_begun
from pccpipe.gc.records import unheld
from pccpipe.gc.report import RemovalStatus
from pccpipe.gc.sweep import DAY
from pccpipe.record.fence import refuse_links
from pccpipe.record.index import RunEntry, read_runs
from pccpipe.spec.project_model import Keep, Project
from pccpipe.workspace.folder import tree_size


class PrunedRun(Struct, frozen=True):
    """A record beyond `keep:`, and whether it was removed.

    Attributes:
        record: its folder.
        size: its bytes.
        only_copies: changes of an agent that are in no diff.
        words: why it stays, or could not be removed.
    """

    run_id: str
    record: Path
    status: RemovalStatus
    size: int
    only_copies: OnlyCopies = OnlyCopies()
    words: str = ""


def prune_records(
    project: Project,
    runs_dir: Path,
    *,
    dry_run: bool = False,
    on_record: Callable[[PrunedRun], object] = lambda _: None,
) -> tuple[PrunedRun, ...]:
    """Remove the records of the project's ended runs beyond its `keep:`; return those beyond it.

    A record with the only copy of an agent's work stays until `only_copies` is over. A run that has not ended stays.

    Raises UsageError if the project sets no bound, or a link leads out of `runs_dir`.
    """
    refuse_unbounded(project)
    refuse_links(Path.cwd(), runs_dir)
    pruned = []
    for entry in _beyond(project, runs_dir, time.time()):
        pruned.append(_pruned(entry, runs_dir, project.keep, dry_run=dry_run))
        on_record(pruned[-1])
    if not dry_run:
        remove_begun(runs_dir)
    return tuple(pruned)


def refuse_unbounded(project: Project) -> None:
    """Raise UsageError if the project file says of no record that it may go."""
    if project.keep.days is None and project.keep.runs is None:
        raise UsageError(
            f"{project.title} has no `keep:` with days or runs, so every record stays",
            "for example `keep: {days: 30, runs: 200}` in the project file",
        )


def _beyond(project: Project, runs_dir: Path, now: float) -> Iterator[RunEntry]:
    """Yield the project's ended runs beyond its bounds, the newest first."""
    days, runs = project.keep.days, project.keep.runs
    # Another project may keep its records in the same folder.
    entries = [entry for entry in read_runs(runs_dir) if entry.started and entry.started.project == project.id]
    for number, entry in enumerate(entries):
        if entry.ended is None or entry.ended_at is None:
            continue
        is_old = days is not None and now - entry.ended_at > days * DAY
        if is_old or (runs is not None and number >= runs):
            yield entry


def _pruned(entry: RunEntry, runs_dir: Path, keep: Keep, *, dry_run: bool) -> PrunedRun:
    run_id, record = entry.run_id, runs_dir / entry.run_id
    size = tree_size(record)
    with unheld(record) as is_free:
        if not is_free:
            return PrunedRun(run_id, record, RemovalStatus.KEPT, size, words="a process uses it")
        only = only_copies(record)
        age = time.time() - (entry.ended_at or 0.0)
        if (only.local or only.is_on_vm) and (keep.only_copies is None or age <= keep.only_copies):
            return PrunedRun(run_id, record, RemovalStatus.KEPT, size, only)
        if dry_run:
            return PrunedRun(run_id, record, RemovalStatus.PLANNED, size, only)
        try:
            removed = delete_record(run_id, runs_dir)
        except UsageError as error:
            return PrunedRun(run_id, record, RemovalStatus.FAILED, size, only, error.message)
    if removed.left:
        words = f"another user's files are in {removed.left[0]}"
        return PrunedRun(run_id, record, RemovalStatus.FAILED, size, only, words)
    return PrunedRun(run_id, record, RemovalStatus.REMOVED, removed.size, only)
