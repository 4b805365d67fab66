"""What the records here say of the runs whose things are found."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from pccpipe.errors import PccpipeError
from pccpipe.gc.decide import Record
from pccpipe.layout import COPY, EVENTS, LOCK, SENT, SYNC_STATE
from pccpipe.record.events import RunStarted
from pccpipe.record.index import RunEntry, list_runs


class Records(Protocol):
    """What a place's runs are looked up in."""

    def of(self, run_id: str) -> Record: ...

    def names_all(self, run_id: str, marks: Collection[str]) -> bool:
        """Whether the run's record names all of these, which are random and thus of that run alone."""
        ...

    def has_undiffed_changes(self, run_id: str) -> bool:
        """Whether the run's copy at home holds changes that no diff has, or nobody can tell."""
        ...

    def has_only_copy_on_vm(self, run_id: str) -> bool:
        """Whether the VM's copy holds changes of the run that were not brought back, or nobody can tell."""
        ...

    def unheld(self, run_id: str) -> contextlib.AbstractContextManager[bool]:
        """Within the block no process here takes up the run; False if one has."""
        ...


class RunsDir:
    """The records of a folder.

    Args:
        counts: whether a run of that beginning can be the one whose things are found.
    """

    def __init__(self, runs_dir: Path, counts: Callable[[RunStarted], bool] = lambda _: True) -> None:
        self._runs_dir = runs_dir
        self._entries = {entry.run_id: entry for entry in list_runs(runs_dir) if _may_count(entry, counts)}

    def of(self, run_id: str) -> Record:
        entry = self._entries.get(run_id)
        if entry is None:
            return Record.NONE
        if _is_held(self._runs_dir / run_id):
            return Record.HELD
        if entry.waiting:
            return Record.WAITING
        if entry.stopped:
            return Record.STOPPED
        return Record.ENDED if entry.ended else Record.OPEN

    def names_all(self, run_id: str, marks: Collection[str]) -> bool:
        try:
            journal = (self._runs_dir / run_id / EVENTS).read_bytes()
        except OSError:
            return False
        return bool(marks) and all(mark.encode(errors="surrogateescape") in journal for mark in marks)

    def has_undiffed_changes(self, run_id: str) -> bool:
        from pccpipe.workspace.sync import WorkspaceSync

        record = self._runs_dir / run_id
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

    def has_only_copy_on_vm(self, run_id: str) -> bool:
        from pccpipe.workspace.state import has_only_copy_on_vm

        return has_only_copy_on_vm(self._runs_dir / run_id)

    @contextlib.contextmanager
    def unheld(self, run_id: str) -> Iterator[bool]:
        with contextlib.ExitStack() as stack:
            yield run_id not in self._entries or stack.enter_context(_shared(self._runs_dir / run_id))


class OnlyEnded(Struct, frozen=True):
    """All that is known is which runs have ended, and of which the VM's copy is the only one; what still runs stays."""

    has_ended: Callable[[str], bool]
    has_only_copy: Callable[[str], bool] = lambda _: False

    def of(self, run_id: str) -> Record:
        return Record.ENDED if self.has_ended(run_id) else Record.NONE

    def names_all(self, run_id: str, marks: Collection[str]) -> bool:  # noqa: ARG002 - as Records has it
        return False

    def has_undiffed_changes(self, run_id: str) -> bool:  # noqa: ARG002
        return True

    def has_only_copy_on_vm(self, run_id: str) -> bool:
        return self.has_only_copy(run_id)

    @contextlib.contextmanager
    def unheld(self, run_id: str) -> Iterator[bool]:  # noqa: ARG002
        yield True


def _may_count(entry: RunEntry, counts: Callable[[RunStarted], bool]) -> bool:
    # One without a readable beginning counts as a run that has not ended.
    return entry.started is None or counts(entry.started)


def _is_held(run_dir: Path) -> bool:
    with _shared(run_dir) as is_free:
        return not is_free


@contextlib.contextmanager
def _shared(run_dir: Path) -> Iterator[bool]:
    """The run's lock, shared, so that nobody can take it; False if a process has it."""
    try:
        fd = os.open(run_dir / LOCK, os.O_RDONLY)
    except OSError:
        yield True
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        is_free = True
    except OSError:  # held; or the disk has no locks, and nothing is known
        is_free = False
    try:
        yield is_free
    finally:
        os.close(fd)
