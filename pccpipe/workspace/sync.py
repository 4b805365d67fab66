"""Keeps the copies of a run's workspace in step: the user's folder, the local copy and the one on the VM.

Imports transfers and comparisons where it uses them: a run that uploads nothing does not load them (20 ms).
"""

from __future__ import annotations

import functools
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from pccpipe.cancel import Halt, unless_halted
from pccpipe.errors import ActionError, Unavailable, WorkspaceGone
from pccpipe.machine.base import Machine
from pccpipe.machine.entering import HINT
from pccpipe.record.fence import GIT
from pccpipe.secrets.values import Secrets
from pccpipe.targets import as_root
from pccpipe.workspace.base import Changed, Downloaded, Sent, Side
from pccpipe.workspace.choice import Choice
from pccpipe.workspace.copy import KnownFolder, copy_paths, merge, missing_paths
from pccpipe.workspace.exclude import Excluded
from pccpipe.workspace.folder import has_others_files, incoming, remove_tree
from pccpipe.workspace.guard import Guard
from pccpipe.workspace.intake import Counted, Limits
from pccpipe.workspace.names import forms
from pccpipe.workspace.pack import Pack
from pccpipe.workspace.state import WorkspaceState

if TYPE_CHECKING:
    from pccpipe.workspace.own import OwnCopy
    from pccpipe.workspace.vm_copy import VmCopy


class Copies(Struct, frozen=True):
    """The copies for steps with `workspace: own`."""

    folder: str = ""
    """On the VM."""
    root: Callable[[str, str], bool] = lambda *_: False
    """Runs a script as root in the copy at a folder, if possible; returns whether it succeeded."""


class WorkspaceSync:
    """A `Workspace`. One call at a time; safe from many threads.

    Args:
        user_folder: the workspace as the user gave it; never written.
        local_copy: the run's local copy, made as soon as a local step needs it.
        sent: the folder of the archive of what was sent.
        machine: returns the VM; None if the project has none.
        remote: the copy's folder on the VM.
        state: the file that says which copy is the newest, for a process that resumes the run.
        secrets: no file with one goes to the VM; fetched files are masked.
        keeps_folder: another user makes and removes `remote`: `remove` only empties it.
        root: runs a script in the newest copy as root, if possible; returns whether it succeeded.
        own: a pattern for pccpipe's own files in the user's folder, which are not part of the workspace.
        copies: those for steps with a workspace of their own.
    """

    def __init__(
        self,
        user_folder: Path,
        local_copy: Path,
        sent: Path,
        machine: Callable[[], Machine] | None,
        remote: str,
        state: Path,
        secrets: Secrets | None = None,
        limits: Limits | None = None,
        *,
        keeps_folder: bool = False,
        root: Callable[[str], bool] = lambda _: False,
        own: str = "",
        copies: Copies | None = None,
    ) -> None:
        self._copies = copies or Copies()
        self._own = (own,) if own else ()
        self._user_folder = user_folder
        self._copy = local_copy
        self._sent = Pack(sent)
        self._machine = machine
        self._remote = remote
        self._keeps_folder = keeps_folder
        self._as_root = root
        self._state_file = state
        self._secrets = secrets or Secrets()
        self._masker = self._secrets.masker
        self._limits = limits or Limits()
        self._lock = threading.RLock()
        self._state = WorkspaceState([])

    def resume(self) -> None:
        with self._lock:
            old = self._beside("old")
            if old.exists() and not self._copy.exists():
                old.rename(self._copy)
            try:
                self._state = WorkspaceState.load(self._state_file)
            except FileNotFoundError:
                return
            self._state.has_copy = self._state.has_copy and self._sent.exists
            if self._state.has_copy:
                self._sent = Pack.open(self._sent.folder)

    @property
    def local_folder(self) -> Path:
        return self._copy if self._state.has_copy else self._user_folder

    @property
    def is_on_vm(self) -> bool:
        """The VM has a copy, which only a step can have removed. Does not wait for a transfer."""
        return self._state.on_vm

    @property
    def has_git(self) -> bool:
        return self._state.git

    @property
    def label(self) -> str:
        return ""

    def folder_on(self, side: Side) -> str:  # noqa: ARG002 - the target knows the run's workspace
        return ""

    def own(self, name: str, *, is_disposable: bool) -> OwnCopy:
        from pccpipe.workspace.own import OwnCopy

        return OwnCopy(self, name, is_disposable=is_disposable)

    def has_undiffed_changes(self, halt: Halt | None = None) -> bool:
        with self._lock:
            is_there = self._copy.exists() and not self._copy.is_symlink()
            if not self._state.has_copy or not self._state.stale_patch or not is_there:
                return False
            from pccpipe.workspace.diff import make_diff

            made = make_diff(self._sent, self._copy, self._masker, self._limits, halt)
            return made.digest != self._state.last_patch

    def upload(self, exclude: Sequence[str], halt: Halt, *, with_git: bool = False) -> Sent:
        with self._lock:
            began = time.monotonic()
            patterns = [*exclude, *self._own]
            full = not self._state.has_copy or patterns != self._state.exclude
            self._sent.store(self._user_folder, Excluded(patterns), halt, Guard(patterns, self._secrets), full=full)
            self._state.exclude = patterns
            # Beside a later upload, an older commit would be wrong.
            if with_git or self._state.git:
                from pccpipe.workspace.git_base import make_base

                make_base(self._sent, self._base, halt)
                self._state.git = True
            # The upload replaces what local steps made.
            if not remove_tree(self._copy):
                raise ActionError(f"cannot remove the run's old copy of the workspace: {self._copy}")
            self._state.has_copy = True
            # What local steps changed before it is a part of it.
            self._state.stale_patch = False
            self._state.newest = Side.LOCAL if self._machine else None
            self._save()
            if self._machine:
                self._to_vm(halt, renews_git=True)
            method = "tar" if self._machine else "copy"
            return Sent(self._sent.files, self._sent.size, method, time.monotonic() - began)

    def prepare(self, side: Side, halt: Halt, *, or_last_known: bool = False) -> Sent | None:
        with self._lock:
            if not self._state.has_copy:
                return None
            if self._machine is None or self._state.newest in {None, side}:
                if side is Side.LOCAL:
                    self._unpack(halt)
                return None
            began = time.monotonic()
            if side is Side.VM:
                self._to_vm(halt)
                return Sent(0, 0, "tar", time.monotonic() - began)
            try:
                counted = self._from_vm(halt)
            except Unavailable:
                if not or_last_known:
                    raise
                self._state.newest = Side.LOCAL
                self._unpack(halt)
                return Sent(0, 0, "none", time.monotonic() - began, stale=True)
            return Sent(counted.files, counted.bytes, "tar", time.monotonic() - began, counted.refusals)

    def ensure_local(self, halt: Halt) -> bool:
        with self._lock:
            if self._state.has_copy:
                self._unpack(halt)
            return self._state.newest is Side.VM

    def mark_changed(self, side: Side) -> None:
        with self._lock:
            before = replace(self._state)
            if self._state.has_copy and self._machine is not None:
                self._state.newest = side
            if side is Side.LOCAL:
                self._state.stale_patch = True
            elif self._machine is not None:
                # The command's target made the folder if it was missing.
                self._state.on_vm = True
            if before != self._state:
                self._save()

    def download(
        self, paths: Sequence[str], into: Path, halt: Halt, *, exclude: Sequence[str] = (), by_name: bool = False
    ) -> Downloaded:
        with self._lock:
            choice = Choice(paths, [*exclude, *self._own], by_name=by_name)
            vm = self._vm(halt) if self._is_newest_on_vm else None
            if not vm and self._state.has_copy:
                self._unpack(halt)
            roots = self._existing(choice.roots, vm)
            counted = Counted()
            staging = incoming(into)
            try:
                if vm and roots:
                    counted = vm.fetch_paths(choice, roots, staging, self._limits, self._masker)
                elif roots:
                    folder, own = self.local_folder, self._state.has_copy
                    counted = copy_paths(folder, choice, roots, staging, self._limits, self._masker, halt, own=own)
                if counted.found:
                    merge(staging, into, counted)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
            numbered = list(enumerate(choice.paths))
            return Downloaded(
                counted.files,
                counted.bytes,
                tuple(path.text for number, path in numbered if number not in counted.found),
                counted.refusals,
                tuple(counted.masked),
                counted.more_masked,
                tuple(path.text for number, path in numbered if number not in counted.brought),
            )

    def _existing(self, roots: Sequence[str], vm: VmCopy | None) -> list[str]:
        """Return the paths that exist, as the disk of the newest copy spells them, without those inside of others."""
        spelled = {root: forms(root) for root in roots if root}
        candidates = [form for each in spelled.values() for form in each]
        missing = vm.missing if vm else functools.partial(missing_paths, self.local_folder)
        gone = set(missing(candidates) if candidates else ())
        present = {next((form for form in each if form not in gone), "") for each in spelled.values()}
        if "" in roots:
            return [""]
        return [path for path in sorted(present - {""}) if not present & set(map(str, PurePosixPath(path).parents))]

    def diff(self, patch: Path, halt: Halt) -> Changed:
        with self._lock:
            if not self._state.has_copy:
                raise ActionError("there is nothing to compare with", "put an `upload: workspace` step before the diff")
            refused: tuple[str, ...] = ()
            if self._state.newest is Side.VM and self._machine is not None:
                refused = self._from_vm(halt).refusals
            self._unpack(halt)
            self.reclaim_files()
            from pccpipe.workspace.diff import make_diff

            made = make_diff(self._sent, self._copy, self._masker, self._limits, halt, patch)
            self._state.last_patch = made.digest
            self._state.stale_patch = False
            self._save()
            return replace(made.changed, refused=(*refused, *made.changed.refused))

    def reclaim_files(self) -> None:
        """Open the local copy to its owner, where the root of a local container left files in it."""
        with self._lock:
            if self._machine is None and self._state.has_copy and has_others_files(self._copy):
                self._as_root(as_root.OPEN_UP_ROOTS)

    def remove(self, halt: Halt) -> tuple[str, ...]:
        with self._lock:
            if self._machine is None or not self._state.on_vm:
                return ()
            vm = self._vm(halt)
            refused: tuple[str, ...] = ()
            if self._state.newest is Side.VM and self._state.has_copy:
                # Fetches a step's work that exists only in this folder.
                try:
                    refused = self._from_vm(halt).refusals
                except WorkspaceGone as gone:
                    refused = (gone.message,)
            vm.remove(keeps_folder=self._keeps_folder)
            self._state.on_vm = False
            self._state.newest = Side.LOCAL
            self._save()
            return refused

    def _save(self) -> None:
        self._state.save(self._state_file)

    def _beside(self, use: str) -> Path:
        return self._copy.with_name(f".{self._copy.name}.{use}")

    @property
    def _is_newest_on_vm(self) -> bool:
        newest = self._state.newest
        return self._machine is not None and (newest is Side.VM or (newest is None and self._state.on_vm))

    def _vm(self, halt: Halt) -> VmCopy:
        """Return the copy on the VM. Raises Unavailable, Halted."""
        from pccpipe.workspace.vm_copy import VmCopy

        assert self._machine is not None
        return VmCopy(unless_halted(halt, self._machine), self._remote, halt, self._as_root)

    def _unpack(self, halt: Halt) -> None:
        """Make sure that there is a local copy. Raises WorkspaceGone if a step removed or replaced it."""
        if self._has_local_copy():
            return
        if self._state.stale_patch:
            raise WorkspaceGone(f"the workspace {self._copy} is gone: a step removed or moved it", HINT)
        self._sent.unpack(self._copy, halt, self._base_if_any)

    def _has_local_copy(self) -> bool:
        """Say whether there is a local copy. Raises WorkspaceGone if a link is in its place."""
        if self._copy.is_symlink():
            words = f"the workspace {self._copy} is a symbolic link now: pccpipe does not follow it"
            raise WorkspaceGone(words, HINT)
        return self._copy.exists()

    @property
    def _base(self) -> Pack:
        """The git repository that the copies get."""
        return Pack(self._sent.folder / "git")

    @property
    def _base_if_any(self) -> Pack | None:
        return Pack.open(self._base.folder) if self._state.git else None

    def _to_vm(self, halt: Halt, *, renews_git: bool = False) -> None:
        vm = self._vm(halt)
        excluded = Excluded(self._state.exclude)
        pack = self._sent
        try:
            if self._has_local_copy():
                # Local steps may have changed it.
                pack = Pack(self._beside("outgoing"))
                pack.store(self._copy, excluded, halt, full=True, own=True)
            vm.send(pack, excluded, self._base_if_any, renews_git=renews_git)
        finally:
            if pack is not self._sent:
                pack.remove()
        self._state.on_vm = True
        self._state.newest = None
        self._save()

    def _from_vm(self, halt: Halt) -> Counted:
        """Fetch the VM's copy into a folder beside the local one, check it, and replace the local one by it."""
        vm = self._vm(halt)
        staging = self._beside("incoming")
        try:
            has_copy = not self._copy.is_symlink() and self._copy.exists()
            known = KnownFolder(self._copy) if has_copy else self._sent
            counted = vm.fetch_tree(known, staging, Excluded(self._state.exclude), self._limits)
            if base := self._base_if_any:
                base.unpack(staging / GIT, halt)
            old = self._beside("old")
            remove_tree(old)
            if os.path.lexists(self._copy):
                self._copy.rename(old)
            staging.rename(self._copy)
            remove_tree(old)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        self._state.newest = None
        self._state.stale_patch = True
        self._save()
        return counted
