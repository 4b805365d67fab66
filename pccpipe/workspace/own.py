"""Keeps the workspace of a step with `workspace: own`: a copy of the run's, made when its first command begins."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from pccpipe.cancel import Halt
from pccpipe.errors import ActionError, WorkspaceGone
from pccpipe.layout import ARTIFACTS, COPY, OWN_COPIES, SYNC_STATE
from pccpipe.machine.base import Process
from pccpipe.machine.local import LocalMachine, LocalProcess
from pccpipe.targets import as_root
from pccpipe.workspace.base import COPIED, Changed, CopyEnd, Downloaded, Sent, Side
from pccpipe.workspace.folder import incoming, remove_tree
from pccpipe.workspace.sync import WorkspaceSync
from pccpipe.workspace.tree_copy import copy_tree

LOOK_EVERY = 0.2
"""Seconds between two looks for a halt, while this machine copies."""


class OwnCopy(WorkspaceSync):
    """An `OwnWorkspace`. Until a command needs it, its content is that of the workspace that it copies.

    Args:
        source: the workspace to copy: the run's, or that of a step around it.
        name: of the copy's folders; unique in the run.
        is_disposable: nobody needs its changes after the step.
    """

    def __init__(self, source: WorkspaceSync, name: str, *, is_disposable: bool) -> None:
        around = source._home.parent if isinstance(source, OwnCopy) else source._state_file.parent / OWN_COPIES
        home: Path = around / name
        super().__init__(
            user_folder=source._user_folder,
            local_copy=home / COPY,
            sent=source._sent.folder,
            machine=source._machine,
            remote=f"{source._copies.folder}/{name}",
            state=home / SYNC_STATE,
            secrets=source._secrets,
            limits=source._limits,
            root=self._in_copy_as_root,
            copies=source._copies,
        )
        self._source = source
        self._home: Path = home
        self._is_disposable = is_disposable
        self.resume()

    @property
    def label(self) -> str:
        return self._home.name.rpartition("-")[0]

    @property
    def has_git(self) -> bool:
        return self._state.git if self._state.has_copy else self._source.has_git

    def folder_on(self, side: Side) -> str:
        return self._remote if side is Side.VM else str(self._copy.absolute())

    def prepare(self, side: Side, halt: Halt, *, or_last_known: bool = False) -> Sent | None:
        with self._lock:
            if self._state.has_copy:
                return super().prepare(side, halt, or_last_known=or_last_known)
            with self._source._lock:
                began = time.monotonic()
                sent = self._source.prepare(side, halt, or_last_known=or_last_known)
                self._copy_source(side, halt)
            known = sent or Sent(0, 0, COPIED, 0.0)
            return Sent(0, 0, COPIED, time.monotonic() - began, known.refused, known.stale)

    def ensure_local(self, halt: Halt) -> bool:
        with self._lock:
            if self._state.has_copy:
                return super().ensure_local(halt)
            with self._source._lock:
                is_old = self._source.ensure_local(halt)
                self._copy_source(Side.LOCAL, halt)
            return is_old

    def download(
        self, paths: Sequence[str], into: Path, halt: Halt, *, exclude: Sequence[str] = (), by_name: bool = False
    ) -> Downloaded:
        if self._state.has_copy:
            return super().download(paths, into, halt, exclude=exclude, by_name=by_name)
        return self._source.download(paths, into, halt, exclude=exclude, by_name=by_name)

    def diff(self, patch: Path, halt: Halt) -> Changed:
        return super().diff(patch, halt) if self._state.has_copy else self._source.diff(patch, halt)

    def end(self, halt: Halt) -> CopyEnd:
        with self._lock:
            # A process that was killed in a download left this.
            shutil.rmtree(incoming(self._home.parent.parent / ARTIFACTS / self.label), ignore_errors=True)
            if not self._home.exists():
                return CopyEnd()
            refused: tuple[str, ...] = ()
            if self._machine is not None and self._state.on_vm:
                refused = self._end_on_vm(halt)
            if not self._is_disposable and self.has_undiffed_changes(halt):
                return CopyEnd(self._copy, refused)
            if not remove_tree(self._copy):
                self._as_root(as_root.REMOVE_ALL)
            if not remove_tree(self._home):
                raise ActionError(f"another user's files are in {self._copy}", f"sudo rm -rf {self._home}")
            # Fails while other steps have copies.
            with contextlib.suppress(OSError):
                self._home.parent.rmdir()
            return CopyEnd(None, refused)

    def _end_on_vm(self, halt: Halt) -> tuple[str, ...]:
        refused: tuple[str, ...] = ()
        if self._state.newest is Side.VM and self._state.has_copy and not self._is_disposable:
            try:
                refused = self._from_vm(halt).refusals
            except WorkspaceGone as gone:
                refused = (gone.message,)
        self._vm(halt).remove(keeps_folder=False)
        self._state.on_vm = False
        self._state.newest = Side.LOCAL
        self._save()
        return refused

    def _copy_source(self, side: Side, halt: Halt) -> None:
        """Copy the source, which is up to date on that side."""
        if not self._source._state.has_copy:
            words = "there is no copy of the workspace yet, so a step cannot get one of its own"
            raise ActionError(words, "put an `upload: workspace` step before it")
        # A half of a copy may be left there, whatever happens from now on.
        self._home.mkdir(parents=True, exist_ok=True)
        self._state = replace(
            self._source._state,
            has_copy=False,
            on_vm=side is Side.VM or self._state.on_vm,
            newest=None,
            is_disposable=self._is_disposable,
        )
        self._save()
        if side is Side.VM:
            self._source._vm(halt).copy_to(self._remote)
        else:
            self._copy_here(halt)
        self._sent = self._source._sent
        self._state.has_copy = self._state.stale_patch = True
        self._state.newest = side if self._machine is not None else None
        self._save()

    def _copy_here(self, halt: Halt) -> None:
        def copy() -> None:
            source, target = self._source.local_folder.absolute(), self._copy.absolute()
            copy_tree(_HaltableHere(halt), str(source), str(target))

        try:
            copy()
        except ActionError:
            self._source.reclaim_files()
            copy()

    def _in_copy_as_root(self, script: str) -> bool:
        return self._copies.root(script, self.folder_on(Side.LOCAL if self._machine is None else Side.VM))


class _HaltableHere(LocalMachine):
    """This machine, for a script that a halt ends. Raises `Halted`."""

    def __init__(self, halt: Halt) -> None:
        super().__init__()
        self._halt = halt

    def popen(self, command: str) -> Process:
        return _HaltableProcess(command, self.environment(), self._halt)


class _HaltableProcess(LocalProcess):
    def __init__(self, command: str, env: Mapping[str, str], halt: Halt) -> None:
        super().__init__(command, env)
        self._halt = halt

    def ready(self, timeout: float) -> tuple[bool, bool]:
        until = time.monotonic() + timeout
        # Its own thread closes it: to close a descriptor that another thread waits for is not safe.
        while True:
            self._halt.check()
            left = until - time.monotonic()
            found = super().ready(min(LOOK_EVERY, left))
            if any(found) or left <= LOOK_EVERY:
                return found
