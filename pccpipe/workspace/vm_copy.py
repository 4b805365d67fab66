"""Sends, fetches and removes the run's copy of the workspace on the VM, and retries when the connection breaks."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeVar

from pccpipe.cancel import Halt
from pccpipe.errors import ActionError, Lost, Unavailable, WorkspaceGone
from pccpipe.layout import COPIES, WORKSPACES
from pccpipe.machine.base import Done, Machine, cannot_write, is_full
from pccpipe.machine.entering import check_entered, enter
from pccpipe.machine.haltable import until_halted
from pccpipe.machine.retry import retrying
from pccpipe.outcome import VM_AWAY, Reason
from pccpipe.secrets.mask import Masker
from pccpipe.targets import as_root
from pccpipe.workspace.choice import Choice
from pccpipe.workspace.exclude import Excluded
from pccpipe.workspace.fetch import Unlock, fetch_paths, fetch_tree, unlock_own
from pccpipe.workspace.intake import Counted, KnownTree, Limits
from pccpipe.workspace.pack import Pack
from pccpipe.workspace.send import send, send_git
from pccpipe.workspace.tree_copy import copy_tree

T = TypeVar("T")

AWAY = 60.0
"""Seconds for which the VM may stay away during a transfer before it counts as unavailable."""


class VmCopy:
    """The copy's folder on a VM that is connected.

    Args:
        run_as_root: runs a script in the folder as root, if an image allows that; returns whether it succeeded.

    Each method raises ActionError with the VM's words, Unavailable, Halted, and WorkspaceGone if a step removed the
    folder.
    """

    def __init__(self, machine: Machine, folder: str, halt: Halt, run_as_root: Callable[[str], bool]) -> None:
        self._machine = machine
        self._folder = folder
        self._halt = halt
        self._run_as_root = run_as_root

    def send(self, pack: Pack, excluded: Excluded, base: Pack | None = None, *, renews_git: bool = False) -> None:
        """Make the folder the same as the pack, except for excluded files; `base` becomes its git repository.

        Without `renews_git`, a repository that is there stays.
        """

        def attempt(machine: Machine) -> None:
            try:
                send(machine, pack, self._folder, excluded)
                if base:
                    send_git(machine, base, self._folder, renews=renews_git)
            except ActionError as error:
                # The controller only reads, so the words are the VM's.
                if is_full(error.message):
                    raise cannot_write(machine.host, error.message) from error
                raise

        self._retried(attempt)

    def fetch_tree(self, known: KnownTree, target: Path, excluded: Excluded, limits: Limits) -> Counted:
        """Make a new `target` of the whole folder; see `fetch.fetch_tree`."""
        return self._retried(
            lambda machine: fetch_tree(machine, self._folder, known, target, excluded, limits, self._unlocks(machine))
        )

    def fetch_paths(
        self, choice: Choice, roots: Sequence[str], target: Path, limits: Limits, masker: Masker
    ) -> Counted:
        """Make a new `target` of the files and folders that `choice` wants; see `fetch.fetch_paths`."""

        def attempt(machine: Machine) -> Counted:
            unlocks = self._unlocks(machine)
            return fetch_paths(machine, self._folder, choice, roots, target, limits, masker, unlocks)

        return self._retried(attempt)

    def copy_to(self, folder: str) -> None:
        """Make `folder` a copy of this one, on the VM."""

        def attempt(machine: Machine) -> None:
            try:
                copy_tree(machine, self._folder, folder)
            except WorkspaceGone:
                raise
            except ActionError:
                # It may contain files that only their owner, or root, can open.
                unlock_own(machine, self._folder, ["."])
                self._run_as_root(as_root.OPEN_UP_ROOTS)
                copy_tree(machine, self._folder, folder)

        self._retried(attempt)

    def missing(self, paths: Sequence[str]) -> list[str]:
        """Return the paths that do not exist, or that only a link out of the workspace leads to."""
        tests = [
            f'p=$(readlink -f -- "$(dirname -- {shlex.quote("./" + path)})") &&'
            ' case $p/ in "$w"/*) ;; *) false ;; esac '
            f"&& {{ [ -e {shlex.quote(path)} ] || [ -L {shlex.quote(path)} ]; }} && echo y || echo n"
            for path in paths
        ]
        folders = sorted({parent for path in paths for parent in _parents(path)}, key=len)
        opens = [f"[ -x {name} ] || [ -L {name} ] || chmod u+rx {name}" for name in map(shlex.quote, folders)]
        script = "\n".join([f"{enter(self._folder)}w=$(pwd -P)", *(f"{each} 2>/dev/null" for each in opens), *tests])
        done = self._run(f"export LC_ALL=C; {script}")
        check_entered(self._machine.host, self._folder, done.code)
        if done.code:
            raise ActionError(f"{self._machine.host}: {done.stderr.decode('utf-8', 'replace').strip()}")
        answers = done.stdout.split()
        if len(answers) != len(paths):
            raise ActionError(f"{self._machine.host} did not say which of the files exist")
        return [path for path, answer in zip(paths, answers, strict=True) if answer != b"y"]

    def remove(self, *, keeps_folder: bool) -> None:
        """Remove the copy; with `keeps_folder`, only the contents of its folder, which belongs to another user."""
        script = _removal(self._folder, keeps_folder=keeps_folder)
        done = self._run(script)
        if done.code and self._run_as_root(as_root.REMOVE_ALL):
            done = self._run(script)
        if done.code:
            words = done.stderr.decode("utf-8", "replace").strip().partition("\n")[0]
            hint = f"remove it as root on the VM: rm -rf {shlex.quote(self._folder)}"
            raise ActionError(f"{self._machine.host}: {words}", hint)

    def _run(self, script: str) -> Done:
        return self._retried(lambda machine: machine.run(script))

    def _unlocks(self, machine: Machine) -> list[Unlock]:
        """Return the ways to make readable what a step locked."""
        return [
            lambda paths: unlock_own(machine, self._folder, paths),
            lambda paths: self._run_as_root(as_root.open_up(paths)),
        ]

    def _retried(self, work: Callable[[Machine], T]) -> T:
        """Do the work, and again when the connection breaks, until the VM was away for `AWAY` seconds."""
        broke = False

        def may_retry(error: Exception) -> bool:
            nonlocal broke
            broke_before, broke = broke, True
            return not isinstance(error, Unavailable) or (broke_before and error.reason in VM_AWAY)

        def work_once() -> T:
            with until_halted(self._machine, self._halt) as machine:
                return work(machine)

        try:
            return retrying(work_once, AWAY, may_retry=may_retry, wait=self._halt.wait)
        except Lost as lost:
            raise Unavailable(Reason.SSH_CLOSED, f"{self._machine.host}: {lost.words}") from lost.__cause__


def _removal(remote: str, *, keeps_folder: bool) -> str:
    folder = PurePosixPath(remote)
    # Remove the run's own folder and nothing else, whatever the settings say.
    own = folder.parent if keeps_folder else folder
    assert folder.is_absolute()
    assert own.parent.name == WORKSPACES or COPIES in own.parent.parts
    assert own.name not in {"", ".", ".."}
    name = shlex.quote(own.name if not keeps_folder else remote)
    if not keeps_folder:
        runs = shlex.quote(str(own.parent))
        is_step_copy = COPIES in own.parent.parts
        # A copy that was cut off has such a name. The last copy takes the folder with it.
        parts = f" ./.{name}.*" if is_step_copy else ""
        last = f"cd .. && rmdir {runs} 2>/dev/null; :" if is_step_copy else ""
        # Removes a link in the folder's place, and nothing that it leads to. Follows no link inside either.
        return f"""export LC_ALL=C
            [ ! -L {runs} ] || {{ echo {runs} is a symbolic link now >&2; exit 1; }}
            cd -P -- {runs} 2>/dev/null || exit 0
            rm -rf -- ./{name}{parts} 2>/dev/null || {{
              [ -L ./{name} ] || chmod -R u+rwX -- ./{name}{parts} 2>/dev/null
              rm -rf -- ./{name}{parts} || exit
            }}
            {last}"""
    # The account may not remove or replace this folder.
    return f"""export LC_ALL=C
        [ -d {name} ] || exit 0
        cd {name} 2>/dev/null || {{ chmod u+rwx {name} && cd {name}; }} || exit
        find . -mindepth 1 -delete 2>/dev/null && exit
        chmod -R u+rwX . 2>/dev/null
        exec find . -mindepth 1 -delete"""


def _parents(path: str) -> list[str]:
    return [str(parent) for parent in PurePosixPath(path).parents if str(parent) != "."]
