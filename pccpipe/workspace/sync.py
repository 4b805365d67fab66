"""The run's workspace: the user's folder, the copies at home and on the VM, and which of them is the newest.

How trees travel and are compared is imported where it is done: a run that uploads nothing need not load it (20 ms).
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from pccpipe.cancel import Halt, unless_halted
from pccpipe.errors import ActionError, Lost, Unavailable, WorkspaceGone
from pccpipe.machine.base import Machine, is_full, refused
from pccpipe.machine.entering import HINT, check_entered, enter
from pccpipe.machine.haltable import until_halted
from pccpipe.machine.retry import retrying
from pccpipe.outcome import VM_AWAY, Reason
from pccpipe.record.files import write_atomically
from pccpipe.secrets.values import Secrets
from pccpipe.targets import as_root
from pccpipe.workspace.base import Brought, Changed, Sent, Side
from pccpipe.workspace.copy import KnownFolder, are_missing, take_paths
from pccpipe.workspace.exclude import Excluded
from pccpipe.workspace.folder import has_others_files, remove_tree
from pccpipe.workspace.guard import Guard
from pccpipe.workspace.intake import TWIN, Counted, Limits
from pccpipe.workspace.names import forms
from pccpipe.workspace.pack import Pack

if TYPE_CHECKING:
    from pccpipe.workspace.fetch import Unlock

AWAY = 60.0
"""Seconds for which the VM may stay away in the middle of something before it is not to be had."""


STATE = "workspace.json"
"""The file of a run's record in which it is kept what is where."""


def has_only_copy_on_vm(record: Path) -> bool:
    """Say whether commands on the VM may have changed a run's workspace after its record last brought it back.

    True if nobody can tell.
    """
    try:
        known = json.loads((record / STATE).read_bytes())
    except FileNotFoundError:
        return False  # nothing of it ever went up
    except (OSError, ValueError):
        return True
    try:
        return bool(known["has_copy"] and known["on_vm"] and known["newest"] == Side.VM)
    except (LookupError, TypeError):
        return True


class WorkspaceSync:
    """A `Workspace`. One call at a time; safe from many threads.

    Args:
        user_folder: the workspace as the user gave it; never written.
        home_copy: where the run's copy at home is made, once something at home needs it.
        sent: where what was sent is kept.
        machine: gives the VM; None if the project has none.
        remote: the copy's folder on the VM.
        keeps_folder: that folder is for another to make and to remove: `remove` empties it.
        state: a file in which it is kept what is where, for a process that goes on after this one was killed.
        secrets: no file with one goes up; all that comes back is masked.
        root: runs a script in the newest copy as root, if something can; whether that succeeded.
        own: a pattern for what in the user's folder is pccpipe's own, and no part of the workspace.
    """

    def __init__(
        self,
        user_folder: Path,
        home_copy: Path,
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
    ) -> None:
        self._own = (own,) if own else ()
        self._user_folder = user_folder
        self._copy = home_copy
        self._sent = Pack(sent)
        self._machine = machine
        self._remote = remote
        self._keeps_folder = keeps_folder
        self._as_root = root
        self._state = state
        self._secrets = secrets or Secrets()
        self._masker = self._secrets.masker
        self._limits = limits or Limits()
        self._lock = threading.RLock()
        self._excluded = Excluded()
        self._has_copy = False
        """Whether the run has a copy of its own; at home that may be what was sent alone, which `_unpack` unpacks."""
        self._on_vm = False
        """Whether the VM has a copy of ours."""
        self._newest: Side | None = None
        """Which copy is newer than the other; None: they are the same."""
        self._last_patch = _digest(b"")
        """Of what the last diff said."""
        self._stale_patch = False
        """Whether the copy at home may have changes that it does not have."""

    def take_up(self) -> None:
        """Go on where a process that was killed left off."""
        with self._lock:
            old = self._copy.with_name(f".{self._copy.name}.old")
            if old.exists() and not self._copy.exists():
                old.rename(self._copy)
            try:
                kept = json.loads(self._state.read_bytes())
            except FileNotFoundError:
                return
            self._excluded = Excluded(kept["exclude"])
            self._has_copy, self._on_vm = kept["has_copy"] and self._sent.exists, kept["on_vm"]
            if self._has_copy:
                self._sent = Pack.open(self._sent.folder)
            self._newest = Side(kept["newest"]) if kept["newest"] else None
            self._last_patch, self._stale_patch = kept["last_patch"], kept["stale_patch"]

    def _keep(self) -> None:
        """Note what is where. The caller holds the lock."""
        kept = {
            "exclude": list(self._excluded.given),
            "has_copy": self._has_copy,
            "on_vm": self._on_vm,
            "newest": self._newest,
            "last_patch": self._last_patch,
            "stale_patch": self._stale_patch,
        }
        write_atomically(self._state, json.dumps(kept).encode())

    @property
    def home(self) -> Path:
        return self._copy if self._has_copy else self._user_folder

    @property
    def is_on_vm(self) -> bool:
        """Whether the VM has a copy, which only a step can have removed. Waits for no transfer that goes on."""
        return self._on_vm

    def has_untold_changes(self, halt: Halt | None = None) -> bool:
        with self._lock:
            is_there = self._copy.exists() and not self._copy.is_symlink()
            if not self._has_copy or not self._stale_patch or not is_there:
                return False
            from pccpipe.workspace.diff import make_diff

            return make_diff(self._sent, self._copy, self._masker, self._limits, halt).digest != self._last_patch

    def upload(self, exclude: Sequence[str], halt: Halt) -> Sent:
        with self._lock:
            began = time.monotonic()
            exclude = (*exclude, *self._own)
            anew = not self._has_copy or exclude != self._excluded.given
            self._sent.take(self._user_folder, Excluded(exclude), halt, Guard(exclude, self._secrets), anew=anew)
            self._excluded = Excluded(exclude)
            # What steps at home had is no longer what counts.
            if not remove_tree(self._copy):
                raise ActionError(f"the run's old copy of the workspace cannot be removed: {self._copy}")
            self._has_copy = True
            self._newest = Side.HOME if self._machine else None
            self._keep()
            if self._machine:
                self._to_vm(unless_halted(halt, self._machine), halt)
            method = "tar" if self._machine else "copy"
            return Sent(self._sent.files, self._sent.size, method, time.monotonic() - began)

    def prepare(self, side: Side, halt: Halt, *, or_last_known: bool = False) -> Sent | None:
        with self._lock:
            if not self._has_copy:
                return None
            if self._machine is None or self._newest in {None, side}:
                if side is Side.HOME:
                    self._unpack(halt)
                return None
            began = time.monotonic()
            if side is Side.VM:
                self._to_vm(unless_halted(halt, self._machine), halt)
                return Sent(0, 0, "tar", time.monotonic() - began)
            try:
                counted = self._to_home(unless_halted(halt, self._machine), halt)
            except Unavailable:
                if not or_last_known:
                    raise
                self._newest = Side.HOME
                self._unpack(halt)
                return Sent(0, 0, "none", time.monotonic() - began, stale=True)
            return Sent(counted.files, counted.bytes, "tar", time.monotonic() - began, counted.told)

    def lay_out(self, halt: Halt) -> bool:
        with self._lock:
            if self._has_copy:
                self._unpack(halt)
            return self._newest is Side.VM

    def touched(self, side: Side) -> None:
        with self._lock:
            before = self._newest, self._stale_patch, self._on_vm
            if self._has_copy and self._machine is not None:
                self._newest = side
            if side is Side.HOME:
                self._stale_patch = True
            elif self._machine is not None:
                # The command's target made the folder, if nobody else did.
                self._on_vm = True
            if before != (self._newest, self._stale_patch, self._on_vm):
                self._keep()

    def download(self, paths: Sequence[str], into: Path, halt: Halt) -> Brought:
        with self._lock:
            wanted = [_checked(path) for path in paths]
            machine = self._newest_machine(halt)
            if not machine and self._has_copy:
                self._unpack(halt)
            # A name may be spelled otherwise on the disk that it comes from.
            spelled = {path: forms(path) for path in wanted}
            asked = [form for path in wanted for form in spelled[path]]
            gone = set(self._missing(machine, asked, halt) if machine else are_missing(self.home, asked))
            found = {path: next((form for form in spelled[path] if form not in gone), None) for path in wanted}
            missing = [path for path in wanted if found[path] is None]
            present = [form for path in wanted if (form := found[path]) is not None]
            if not present:
                return Brought(0, 0, tuple(missing), ())
            staging = into.with_name(f".{into.name}.incoming")
            try:
                counted = self._bring(machine, present, staging, halt)
                _merge(staging, into, counted)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
            return Brought(
                counted.files, counted.bytes, tuple(missing), counted.told, tuple(counted.masked), counted.more_masked
            )

    def _bring(self, machine: Machine | None, paths: Sequence[str], staging: Path, halt: Halt) -> Counted:
        """Files and folders of the newest copy, from the VM or from here, as a new folder."""
        if machine is None:
            return take_paths(self.home, paths, staging, self._limits, self._masker, own=self._has_copy)
        from pccpipe.workspace.fetch import fetch_paths

        return _told(
            machine,
            halt,
            lambda over: fetch_paths(
                over, self._remote, paths, staging, self._limits, self._masker, self._unlocks(over)
            ),
        )

    def diff(self, patch: Path, halt: Halt) -> Changed:
        with self._lock:
            if not self._has_copy:
                raise ActionError("there is nothing to compare with", "put an `upload: workspace` step before the diff")
            refused: tuple[str, ...] = ()
            if self._newest is Side.VM and self._machine is not None:
                refused = self._to_home(unless_halted(halt, self._machine), halt).told
            self._unpack(halt)
            self.take_back()
            from pccpipe.workspace.diff import make_diff

            made = make_diff(self._sent, self._copy, self._masker, self._limits, halt, patch)
            self._last_patch = made.digest
            self._stale_patch = False
            self._keep()
            return replace(made.changed, refused=(*refused, *made.changed.refused))

    def take_back(self) -> None:
        """Open the copy here to its owner, as far as root of a container on this machine left files in it."""
        with self._lock:
            if self._machine is None and self._has_copy and has_others_files(self._copy):
                self._as_root(as_root.OPEN_UP_ROOTS)

    def remove(self, halt: Halt) -> tuple[str, ...]:
        with self._lock:
            if self._machine is None or not self._on_vm:
                return ()
            machine = unless_halted(halt, self._machine)
            refused: tuple[str, ...] = ()
            if self._newest is Side.VM and self._has_copy:
                # A step's work that is nowhere else is not thrown away with the folder.
                try:
                    refused = self._to_home(machine, halt).told
                except WorkspaceGone as gone:
                    refused = (gone.message,)
            script = _removal(self._remote, keeps_folder=self._keeps_folder)
            done = _told(machine, halt, lambda over: over.run(script))
            if done.code and self._as_root(as_root.REMOVE_ALL):
                done = _told(machine, halt, lambda over: over.run(script))
            if done.code:
                words = done.stderr.decode("utf-8", "replace").strip().partition("\n")[0]
                raise ActionError(f"{machine.host}: {words}", AS_ROOT.format(folder=shlex.quote(self._remote)))
            self._on_vm = False
            self._newest = Side.HOME
            self._keep()
            return refused

    def _unpack(self, halt: Halt) -> None:
        """See to it that the copy at home is there. Raises WorkspaceGone if a step removed or replaced it."""
        if self._check_copy():
            return
        if self._stale_patch:
            raise WorkspaceGone(f"the workspace {self._copy} is gone: a step removed or moved it", HINT)
        self._sent.unpack(self._copy, halt)

    def _check_copy(self) -> bool:
        """Whether the copy at home is there. Raises WorkspaceGone if a link took its place."""
        if self._copy.is_symlink():
            words = f"the workspace {self._copy} is a symbolic link now: nothing that it leads to is taken"
            raise WorkspaceGone(words, HINT)
        return self._copy.exists()

    def _to_vm(self, machine: Machine, halt: Halt) -> None:
        from pccpipe.workspace.send import send

        def sending(machine: Machine) -> None:
            try:
                send(machine, pack, self._remote, self._excluded)
            except ActionError as error:
                # Here is only read: the words are the VM's.
                if is_full(error.message):
                    raise refused(machine.host, error.message) from error
                raise

        pack = self._sent
        try:
            if self._check_copy():
                # Steps at home may have changed it.
                pack = Pack(self._copy.with_name(f".{self._copy.name}.outgoing"))
                pack.take(self._copy, self._excluded, halt, anew=True, own=True)
            _told(machine, halt, sending)
        finally:
            if pack is not self._sent:
                pack.remove()
        self._on_vm = True
        self._newest = None
        self._keep()

    def _to_home(self, machine: Machine, halt: Halt) -> Counted:
        """Bring the VM's copy into a folder beside ours, look at it, and put it in our copy's place."""
        staging = self._copy.with_name(f".{self._copy.name}.incoming")
        try:
            from pccpipe.workspace.fetch import fetch_tree

            has_copy = not self._copy.is_symlink() and self._copy.exists()
            known = KnownFolder(self._copy) if has_copy else self._sent
            counted = _told(
                machine,
                halt,
                lambda over: fetch_tree(
                    over, self._remote, known, staging, self._excluded, self._limits, self._unlocks(over)
                ),
            )
            old = self._copy.with_name(f".{self._copy.name}.old")
            remove_tree(old)
            if os.path.lexists(self._copy):
                self._copy.rename(old)
            staging.rename(self._copy)
            remove_tree(old)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        self._newest = None
        self._stale_patch = True
        self._keep()
        return counted

    def _unlocks(self, machine: Machine) -> list[Unlock]:
        """What makes readable there what a step has locked."""
        from pccpipe.workspace.fetch import unlock_own

        return [
            lambda paths: unlock_own(machine, self._remote, paths),
            lambda paths: self._as_root(as_root.open_up(paths)),
        ]

    def _newest_machine(self, halt: Halt) -> Machine | None:
        """The VM, if the newest copy is there."""
        if self._machine is not None and (self._newest is Side.VM or (self._newest is None and self._on_vm)):
            return unless_halted(halt, self._machine)
        return None

    def _missing(self, machine: Machine, paths: Sequence[str], halt: Halt) -> list[str]:
        """Those that are not there, or are reached only through a link: what it leads to is none of the workspace."""
        tests = [
            f'p=$(readlink -f -- "$(dirname -- {shlex.quote("./" + path)})") &&'
            ' case $p/ in "$w"/*) ;; *) false ;; esac '
            f"&& {{ [ -e {shlex.quote(path)} ] || [ -L {shlex.quote(path)} ]; }} && echo y || echo n"
            for path in paths
        ]
        folders = sorted({above for path in paths for above in _folders_above(path)}, key=len)
        opens = [f"[ -x {name} ] || [ -L {name} ] || chmod u+rx {name}" for name in map(shlex.quote, folders)]
        script = "\n".join([f"{enter(self._remote)}w=$(pwd -P)", *(f"{each} 2>/dev/null" for each in opens), *tests])
        done = _told(machine, halt, lambda over: over.run(f"export LC_ALL=C; {script}"))
        check_entered(machine.host, self._remote, done.code)
        if done.code:
            raise ActionError(f"{machine.host}: {done.stderr.decode('utf-8', 'replace').strip()}")
        answers = done.stdout.split()
        if len(answers) != len(paths):
            raise ActionError(f"{machine.host} did not say which of the files are there")
        return [path for path, answer in zip(paths, answers, strict=True) if answer != b"y"]


def _removal(remote: str, *, keeps_folder: bool) -> str:
    folder = PurePosixPath(remote)
    # What is removed is the run's own folder and nothing else, whatever the settings say.
    own = folder.parent if keeps_folder else folder
    assert folder.is_absolute()
    assert own.parent.name == "run-workspaces"
    assert own.name not in {"", ".", ".."}
    name = shlex.quote(own.name if not keeps_folder else remote)
    if not keeps_folder:
        runs = shlex.quote(str(own.parent))
        # A link in its place goes, and nothing that it leads to. No link inside is followed either.
        return f"""export LC_ALL=C
            [ ! -L {runs} ] || {{ echo {runs} is a symbolic link now >&2; exit 1; }}
            cd -P -- {runs} 2>/dev/null || exit 0
            rm -rf -- ./{name} 2>/dev/null && exit
            [ -L ./{name} ] || chmod -R u+rwX -- ./{name} 2>/dev/null
            exec rm -rf -- ./{name}"""
    # The folder is not the account's to remove or to replace.
    return f"""export LC_ALL=C
        [ -d {name} ] || exit 0
        cd {name} 2>/dev/null || {{ chmod u+rwx {name} && cd {name}; }} || exit
        find . -mindepth 1 -delete 2>/dev/null && exit
        chmod -R u+rwX . 2>/dev/null
        exec find . -mindepth 1 -delete"""


AS_ROOT = "remove it as root on the VM: rm -rf {folder}"


T = TypeVar("T")


def _told(machine: Machine, halt: Halt, work: Callable[[Machine], T]) -> T:
    """Do what may be done twice: again when the connection ends in the middle, until the VM stays away for `AWAY`."""
    broke = False

    def may_retry(error: Exception) -> bool:
        nonlocal broke
        broke_before, broke = broke, True
        return not isinstance(error, Unavailable) or (broke_before and error.reason in VM_AWAY)

    def work_once() -> T:
        with until_halted(machine, halt) as haltable:
            return work(haltable)

    try:
        return retrying(work_once, AWAY, may_retry=may_retry, wait=halt.wait)
    except Lost as lost:
        raise Unavailable(Reason.SSH_CLOSED, f"{machine.host}: {lost.words}") from lost.__cause__


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _checked(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise ActionError(f"{path!r} is no path inside of the workspace", "give a relative path without `..`")
    return str(PurePosixPath(path))


def _folders_above(path: str) -> list[str]:
    return [str(above) for above in PurePosixPath(path).parents if str(above) != "."]


def _merge(source: Path, target: Path, counted: Counted, within: str = "") -> None:
    """Move the files of a tree into another, in place of what is there; nothing is written through a link.

    What the disk takes for another one that an earlier download brought stays behind, which `counted` says.
    """
    target.mkdir(parents=True, exist_ok=True)
    names = {one.name for one in target.iterdir()}
    for entry in sorted(source.iterdir()):
        to = target / entry.name
        if entry.name not in names and os.path.lexists(to):
            counted.refuse(f"{within}{entry.name}", TWIN)
            counted.files -= not entry.is_dir()
            continue
        if entry.is_dir() and not entry.is_symlink() and to.is_dir() and not to.is_symlink():
            _merge(entry, to, counted, f"{within}{entry.name}/")
            continue
        if to.is_dir() and not to.is_symlink():
            shutil.rmtree(to)
        elif os.path.lexists(to):
            to.unlink()
        entry.rename(to)
