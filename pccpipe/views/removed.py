"""Shows the removal of a run's record."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pccpipe.views.text import harmless_line
from pccpipe.words import size

if TYPE_CHECKING:
    from pccpipe.gc.delete import RemovedRun


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
