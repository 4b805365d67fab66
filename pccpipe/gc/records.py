"""Looks up in the local records the runs whose things gc finds."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from pccpipe.errors import PccpipeError
from pccpipe.gc.decide import Recorded
from pccpipe.layout import COPY, EVENTS, LOCK, SENT, SYNC_STATE
from pccpipe.record.index import RunEntry, read_runs
from pccpipe.record.run_events import RunStarted


class Records(Protocol):
    """The records of a site's runs."""

    def of(self, run_id: str) -> Recorded: ...

    def names_all(self, run_id: str, marks: Collection[str]) -> bool:
        """Say whether the run's record names all of these marks: they are random, so no other run has them."""
        ...

    def has_undiffed_changes(self, run_id: str) -> bool:
        """Say whether the run's local copy has, or may have, changes that are in no diff."""
        ...

    def has_only_copy_on_vm(self, run_id: str) -> bool:
        """Say whether the VM's copy has, or may have, changes of the run that were not fetched."""
        ...

    def unheld(self, run_id: str) -> contextlib.AbstractContextManager[bool]:
        """Keep local processes from resuming the run within the block; False if one already runs it."""
        ...


class RunsDir:
    """The records in a folder.

    Args:
        counts: says, by its first event, whether a run can own the things at the site.
    """

    def __init__(self, runs_dir: Path, counts: Callable[[RunStarted], bool] = lambda _: True) -> None:
        self._runs_dir = runs_dir
        self._entries = {entry.run_id: entry for entry in read_runs(runs_dir) if _may_count(entry, counts)}

    def of(self, run_id: str) -> Recorded:
        entry = self._entries.get(run_id)
        if entry is None:
            return Recorded.NONE
        if _is_held(self._runs_dir / run_id):
            return Recorded.HELD
        if entry.waiting:
            return Recorded.WAITING
        if entry.stopped:
            return Recorded.STOPPED
        return Recorded.ENDED if entry.ended else Recorded.OPEN

    def names_all(self, run_id: str, marks: Collection[str]) -> bool:
        try:
            journal = (self._runs_dir / run_id / EVENTS).read_bytes()
        except OSError:
            return False
        return bool(marks) and all(mark.encode(errors="surrogateescape") in journal for mark in marks)

    def has_undiffed_changes(self, run_id: str) -> bool:
        return has_undiffed_changes(self._runs_dir / run_id)

    def has_only_copy_on_vm(self, run_id: str) -> bool:
        from pccpipe.workspace.state import has_only_copy_on_vm

        return has_only_copy_on_vm(self._runs_dir / run_id)

    @contextlib.contextmanager
    def unheld(self, run_id: str) -> Iterator[bool]:
        with contextlib.ExitStack() as stack:
            yield run_id not in self._entries or stack.enter_context(unheld(self._runs_dir / run_id))


def has_undiffed_changes(record: Path) -> bool:
    """Say whether a run's local copy has, or may have, changes that are in no diff."""
    from pccpipe.workspace.sync import WorkspaceSync

    kept = record / SYNC_STATE
    if not kept.is_file():
        return True
    sync = WorkspaceSync(
        user_folder=record,
        local_copy=record / COPY,
        sent=record / SENT,
        machine=None,
        remote="",
        state=kept,
    )
    try:
        sync.resume()
        return sync.has_undiffed_changes()
    except (PccpipeError, OSError, ValueError, LookupError):
        return True


class OnlyEnded(Struct, frozen=True):
    """Knows only which runs have ended, and of which the VM has the only copy."""

    has_ended: Callable[[str], bool]
    has_only_copy: Callable[[str], bool] = lambda _: False

    def of(self, run_id: str) -> Recorded:
        return Recorded.ENDED if self.has_ended(run_id) else Recorded.NONE

    def names_all(self, run_id: str, marks: Collection[str]) -> bool:  # noqa: ARG002 - the signature is that of Records
        return False

    def has_undiffed_changes(self, run_id: str) -> bool:  # noqa: ARG002
        return True

    def has_only_copy_on_vm(self, run_id: str) -> bool:
        return self.has_only_copy(run_id)

    @contextlib.contextmanager
    def unheld(self, run_id: str) -> Iterator[bool]:  # noqa: ARG002
        yield True


def _may_count(entry: RunEntry, counts: Callable[[RunStarted], bool]) -> bool:
    # A record without a readable first event counts as a run that has not ended.
    return entry.started is None or counts(entry.started)


def _is_held(run_dir: Path) -> bool:
    with unheld(run_dir) as is_free:
        return not is_free


@contextlib.contextmanager
def unheld(run_dir: Path) -> Iterator[bool]:
    """Hold the run's lock, shared, so that no process can take it; False if one has it."""
    try:
        fd = os.open(run_dir / LOCK, os.O_RDONLY)
    except OSError:
        yield True
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        is_free = True
    except OSError:  # held; or the disk has no locks, so the state is unknown
        is_free = False
    try:
        yield is_free
    finally:
        os.close(fd)
