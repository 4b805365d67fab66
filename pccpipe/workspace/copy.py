"""Copies files and folders of a local copy, checked and masked like those of a VM."""

from __future__ import annotations

import functools
import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from pccpipe.cancel import Halt
from pccpipe.errors import ActionError
from pccpipe.secrets.mask import Masker
from pccpipe.workspace.choice import Choice, Choosing
from pccpipe.workspace.entry import Entry
from pccpipe.workspace.exclude import Excluded
from pccpipe.workspace.folder import LOCKED, Folder, pieces, walk
from pccpipe.workspace.intake import TWIN, Counted, Intake, Limits


class KnownFolder:
    """A local copy as a `KnownTree`. Links its files instead of copying: it is deleted once the new tree is whole."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @functools.cached_property
    def entries(self) -> Mapping[str, Entry]:
        return {found.entry.path: found.entry for found in walk(self._root, Excluded.only(()), lambda _: None)}

    def put(self, path: str, target: Path) -> None:
        os.link(self._root / path, target, follow_symlinks=False)


def copy_paths(
    source: Path,
    choice: Choice,
    roots: Sequence[str],
    target: Path,
    limits: Limits,
    masker: Masker,
    halt: Halt | None = None,
    *,
    own: bool = False,
) -> Counted:
    """Make a new `target` of the files and folders of a local folder that `choice` wants, checked and masked.

    Args:
        roots: the files and folders to look at; an empty name is the whole folder.
        own: `source` is pccpipe's own: open to its owner what he may not read.

    Raises ActionError, Halted.
    """
    intake = Intake(target, limits, masker)
    work = _Copying(intake, Choosing(choice, intake), choice.excluded, halt, own)
    try:
        for root in roots:
            folder, _, name = root.rpartition("/")
            with Folder.of(source, folder, own=own) as parent:
                if name:
                    work.copy(parent, name, root)
                    continue
                for entry in parent.entries(""):
                    work.copy(parent, entry.path, entry.path)
    except OSError as error:
        raise ActionError(f"cannot copy {error.filename or source}: {error.strerror}") from error
    return intake.finish()


def missing_paths(source: Path, paths: Sequence[str]) -> list[str]:
    """Return the paths that do not exist, or that only a link leads to."""
    return [path for path in paths if not _exists(source, path)]


def merge(source: Path, target: Path, counted: Counted, within: str = "") -> None:
    """Move the files of a tree into another, replacing what is there; never write through a link.

    Leaves behind a file whose name the disk takes for that of another file, and adds it to `counted`.
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
            merge(entry, to, counted, f"{within}{entry.name}/")
            continue
        if to.is_dir() and not to.is_symlink():
            shutil.rmtree(to)
        elif os.path.lexists(to):
            to.unlink()
        entry.rename(to)


def _exists(source: Path, path: str) -> bool:
    folder, _, name = path.rpartition("/")
    try:
        with Folder.of(source, folder) as parent:
            os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
    except OSError:
        return False
    return True


class _Copying(Struct, frozen=True):
    """Copies one choice into one intake; arguments as for `copy_paths`."""

    intake: Intake
    choosing: Choosing
    excluded: Excluded
    halt: Halt | None
    own: bool

    def copy(self, parent: Folder, name: str, path: str) -> None:
        """Copy a file if it is chosen; go through a folder in any case."""
        if self.halt:
            self.halt.check()
        entry = parent.entry(name, path)
        is_folder = stat.S_ISDIR(entry.mode)
        if self.excluded.name(path, is_folder=is_folder):
            return
        chosen = self.choosing.matching(entry)
        if not chosen and (not is_folder or self.choosing.is_closed(entry)):
            return
        if not parent.may_read(entry, name, own=self.own):
            if parent.has(name):
                self.intake.refuse(entry, LOCKED)
            return
        if not chosen:
            self.choosing.hold(entry)
        elif not self.choosing.admit(entry, chosen):
            return
        if is_folder:
            with parent.inner(name) as folder:
                for inner in folder.entries(f"{path}/"):
                    self.copy(folder, inner.path.rpartition("/")[2], inner.path)
        elif stat.S_ISREG(entry.mode):
            self._write(parent, name, path)

    def _write(self, parent: Folder, name: str, path: str) -> None:
        fd = parent.file(name)
        try:
            opened = os.fstat(fd)
            if stat.S_ISREG(opened.st_mode):
                self.intake.write(path, opened.st_size, pieces(fd, opened.st_size))
        finally:
            os.close(fd)
