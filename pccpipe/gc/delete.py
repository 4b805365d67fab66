"""Removes the record of one run, and what else the run left on this machine."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from msgspec import Struct

from pccpipe.errors import UsageError
from pccpipe.gc.records import has_undiffed_changes, unheld
from pccpipe.layout import COPY, OWN_COPIES, REMOVED, STATES, system_folder
from pccpipe.paste import operands
from pccpipe.record.fence import refuse_links
from pccpipe.record.index import read_entry
from pccpipe.supervisor.lines import is_alive
from pccpipe.workspace.folder import remove_tree, tree_size
from pccpipe.workspace.state import has_only_copy_on_vm


class OnlyCopies(Struct, frozen=True):
    """The copies of a run's workspace with changes that exist, or may exist, nowhere else.

    Attributes:
        local: the folder in the record; None if there is none.
        size: its bytes.
        is_on_vm: the VM has such a copy.
    """

    local: Path | None = None
    size: int = 0
    is_on_vm: bool = False


class RemovedRun(Struct, frozen=True):
    """The removal of a run's record.

    Attributes:
        record: the record's folder.
        size: the bytes of all that was removed.
        only_copies: what was in it, or on the VM, and in no diff.
        left: folders that stay, because files of another user are in them.
    """

    run_id: str
    record: Path
    size: int
    only_copies: OnlyCopies = OnlyCopies()
    left: tuple[Path, ...] = ()


def only_copies(record: Path) -> OnlyCopies:
    """Look for copies that hold the only version of an agent's work."""
    if record.is_symlink():
        return OnlyCopies()  # a removal takes the link alone
    is_on_vm = has_only_copy_on_vm(record)
    # Without the copy, the one from before the last fetch is the last.
    for copy in (record / COPY, *sorted(record.glob(f".{COPY}*.old"))):
        if copy.is_dir() and not copy.is_symlink():
            if copy.name != COPY or has_undiffed_changes(record):
                return OnlyCopies(copy, tree_size(copy), is_on_vm)
            break
    # A step's own copy goes at the step's end, unless it has work that no diff has.
    for copy in sorted(record.glob(f"{OWN_COPIES}/*/{COPY}")):
        if copy.is_dir() and not copy.is_symlink():
            return OnlyCopies(copy, tree_size(copy), is_on_vm)
    return OnlyCopies(is_on_vm=is_on_vm)


def delete_record(run_id: str, runs_dir: Path, *, force: bool = False) -> RemovedRun:
    """Remove a run's record and the files of its local commands; follow no link.

    Args:
        force: also of a run that can be resumed.

    Raises UsageError if a process here runs it, it can be resumed, or the folder is not writable.
    """
    record, states = runs_dir / run_id, system_folder(runs_dir) / STATES
    refuse_links(Path.cwd(), runs_dir, states)
    with unheld(record) as is_free:
        if not is_free:
            raise UsageError(f"run {run_id} is running", f"to end it: pccpipe cancel {operands(run_id)}")
        entry = read_entry(record)
        if not entry.ended and not force:
            raise UsageError(
                f"run {run_id} has not ended: it is {entry.status}",
                f"to end it: pccpipe cancel {operands(run_id)}; to remove it anyway: --force",
            )
        state = states / run_id
        if is_alive(str(state)):
            raise UsageError(f"run {run_id}: a command of it still runs on this machine", "to end it: pccpipe gc")
        only = only_copies(record)
        others = [state] if os.path.lexists(state) and not states.is_symlink() else []
        size = sum(tree_size(folder) for folder in (record, *others) if not folder.is_symlink())
        # From now on the run is on no list, even if this process ends in between.
        gone = runs_dir / f"{REMOVED}{run_id}-{secrets.token_hex(4)}"
        try:
            record.rename(gone)
        except OSError as error:
            raise UsageError(f"cannot remove {record}: {error.strerror}") from error
    remove_begun(runs_dir)
    left = tuple(each for each in (gone, *others) if not remove_tree(each))
    return RemovedRun(run_id, record, size, only, left)


def remove_begun(runs_dir: Path) -> None:
    """Finish the removals that a process began and did not finish."""
    for folder in runs_dir.glob(f"{REMOVED}*"):
        remove_tree(folder)
