"""Files and folders of a copy here, judged and masked as those of a VM."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from pccpipe.errors import ActionError
from pccpipe.secrets.mask import Masker
from pccpipe.workspace.exclude import Excluded
from pccpipe.workspace.folder import LOCKED, Folder, pieces, walk
from pccpipe.workspace.intake import Counted, Entry, Intake, Limits


class KnownFolder:
    """A copy here as a `Known`, whose files are linked to: it is thrown away as soon as the new tree is whole."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @functools.cached_property
    def entries(self) -> Mapping[str, Entry]:
        return {found.entry.path: found.entry for found in walk(self._root, Excluded.only(()), lambda _: None)}

    def put(self, path: str, target: Path) -> None:
        os.link(self._root / path, target, follow_symlinks=False)


def take_paths(
    source: Path, paths: Sequence[str], target: Path, limits: Limits, masker: Masker, *, own: bool = False
) -> Counted:
    """Make a new `target` of these files and folders of a folder here, judged and masked as those of a VM.

    Args:
        own: it is pccpipe's own: what its owner may not read is opened to him.

    Raises ActionError.
    """
    intake = Intake(target, limits, masker)
    try:
        for path in paths:
            intake.root(path)
            folder, _, name = path.rpartition("/")
            with Folder.of(source, folder, own=own) as parent:
                _take(parent, name, path, intake, own=own)
    except OSError as error:
        raise ActionError(f"{error.filename or source} cannot be brought: {error.strerror}") from error
    return intake.finish()


def are_missing(source: Path, paths: Sequence[str]) -> list[str]:
    """Those of the paths that are not there, or are reached only through a link."""
    return [path for path in paths if not _is_there(source, path)]


def _is_there(source: Path, path: str) -> bool:
    folder, _, name = path.rpartition("/")
    try:
        with Folder.of(source, folder) as parent:
            os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
    except OSError:
        return False
    return True


def _take(parent: Folder, name: str, path: str, intake: Intake, *, own: bool) -> None:
    entry = parent.entry(name, path)
    if not parent.may_read(entry, name, own=own):
        if parent.has(name):
            intake.refuse(entry, LOCKED)
        return
    if not intake.admit(entry):
        return
    if stat.S_ISDIR(entry.mode):
        with parent.inner(name) as folder:
            for inner in folder.entries(f"{path}/"):
                _take(folder, inner.path.rpartition("/")[2], inner.path, intake, own=own)
    elif stat.S_ISREG(entry.mode):
        fd = parent.file(name)
        try:
            opened = os.fstat(fd)
            if stat.S_ISREG(opened.st_mode):
                intake.write(path, opened.st_size, pieces(fd, opened.st_size))
        finally:
            os.close(fd)
