"""The end of a run: names processes that it left on the VM, and removes its copies of the workspace."""

from __future__ import annotations

import contextlib
import shlex
import shutil
from contextlib import nullcontext
from typing import TYPE_CHECKING

from pccpipe.cancel import Halt
from pccpipe.errors import PccpipeError
from pccpipe.executor.context import RunContext
from pccpipe.layout import ARTIFACTS
from pccpipe.outcome import Place
from pccpipe.record.events import Warned
from pccpipe.record.state import RunState
from pccpipe.session.targets import Folders
from pccpipe.workspace.folder import incoming, remove_tree, tree_size

if TYPE_CHECKING:
    from pccpipe.session.vm import ProjectVm


def name_daemons(context: RunContext, vm: ProjectVm, state: RunState, seconds: float) -> None:
    """Warn of processes that the run's commands left on the VM and that nothing ends: the next run meets them.

    With `run_as`, a sweep of the account ends them instead. Processes that carry a command's mark ended with it, but a
    daemon may have overwritten its mark.
    """
    attempts = (attempt for step in state.steps.values() for attempt in step.attempts)
    if vm.runs_as_account or not any(attempt.had and attempt.had.place is Place.VM for attempt in attempts):
        return
    from pccpipe.gc.unknown import in_words, unknown_processes

    with contextlib.suppress(PccpipeError, OSError):
        machine = vm.connection
        if lines := unknown_processes(machine, vm.root, younger_than=seconds):
            pids = " ".join(line.partition(" ")[0] for line in lines)
            words = f"still running on {machine.host} after the run: {in_words(machine.facts.user, lines)}"
            context.journal.append(Warned(f"{words}; fix: kill {pids}, on the VM"))


def remove_copies(context: RunContext, folders: Folders) -> None:
    """Remove the local copies, unless they hold changes that no diff has: an agent's work is never discarded."""
    # A process that was killed in a download, and whose successor began none, left this.
    shutil.rmtree(incoming(folders.record / ARTIFACTS), ignore_errors=True)
    if not folders.sent.exists():
        return
    cancel = context.cancel
    try:
        # After a cancel, only another one stops the comparison.
        with cancel.shield() if cancel.requested else nullcontext(cancel) as from_now_on:
            is_kept = context.workspace.has_undiffed_changes(Halt(from_now_on))
    except (PccpipeError, OSError):
        is_kept = True  # no diff can be made, or a cancel stopped it
    if is_kept:
        from pccpipe.words import size

        context.journal.append(
            Warned(
                f"files that this run changed exist only in {folders.copy} ({size(tree_size(folders.copy))}): no diff "
                f"has all of them; once you have what you need: rm -rf {shlex.quote(str(folders.copy))}"
            )
        )
        return
    for folder in (folders.copy, folders.sent):
        if not remove_tree(folder):
            words = f"not removed: {folder}: another user's files are in it"
            context.journal.append(Warned(f"{words}; fix: sudo rm -rf {shlex.quote(str(folder))}"))
