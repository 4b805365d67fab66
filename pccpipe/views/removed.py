"""Shows the removal of runs' records."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pccpipe.gc.report import RemovalStatus
from pccpipe.paste import operands
from pccpipe.views.text import harmless_line
from pccpipe.words import size

if TYPE_CHECKING:
    from pccpipe.gc.delete import OnlyCopies, RemovedRun
    from pccpipe.gc.prune import PrunedRun


def removed_text(removed: RemovedRun) -> Iterator[str]:
    """Yield a line for the record, and one for each thing that a person should know."""
    yield harmless_line(f"removed run {removed.run_id}, {size(removed.size)}: {removed.record}")
    only = removed.only_copies
    if only.local:
        words = f"it had the only copy of files that the run changed, {size(only.size)}"
        yield harmless_line(f"  {words}: {only.local.name}")
    if only.is_on_vm:
        yield "  the VM may have changes that were not brought back; the next `pccpipe gc` may remove them"
    for folder in removed.left:
        fix = f"sudo rm -rf {shlex.quote(str(folder))}"
        yield harmless_line(f"  not removed: {folder}: another user's files are in it; fix: {fix}")


def pruned_text(pruned: PrunedRun) -> str:
    """Return the line for a record beyond `keep:`."""
    line = f"{_STATUS[pruned.status]:<9} record of run {pruned.run_id}, {size(pruned.size)}: "
    only = _only(pruned.only_copies)
    if pruned.status is RemovalStatus.KEPT and only:
        return harmless_line(f"  {line}{only}; to remove it anyway: pccpipe rm {operands(pruned.run_id)}")
    return harmless_line(f"  {line}{pruned.words or 'beyond keep:'}{f'; {only}' if only else ''}")


_STATUS = {
    RemovalStatus.KEPT: "kept",
    RemovalStatus.PLANNED: "would go",
    RemovalStatus.REMOVED: "removed",
    RemovalStatus.FAILED: "FAILED",
}


def _only(only: OnlyCopies) -> str:
    if only.local:
        return f"only {only.local} has all changes of the run, {size(only.size)}"
    return "the VM may have changes that were not brought back" if only.is_on_vm else ""
