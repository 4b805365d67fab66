"""Reads folders by descriptor: never opens a path through a link, even if other processes write there meanwhile."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from msgspec import Struct

from pccpipe.workspace.entry import Entry
from pccpipe.workspace.exclude import Excluded

PIECE = 256 * 1024
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ENTERS = os.R_OK | os.X_OK
# Does not wait for a FIFO in a file's place.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


LOCKED = "unreadable: it belongs to another user"
"""The reason for leaving something out."""


class Folder:
    """An open folder; a context manager. Errors name files in it by their whole path."""

    def __init__(self, fd: int, path: Path) -> None:
        self.fd = fd
        self._path = path

    @staticmethod
    def of(root: Path, path: str = "", *, own: bool = False) -> Folder:
        """Open the folder at `path` under `root`, without following a link. Raises OSError.

        Args:
            own: `root` is pccpipe's own, so it is not a link either, and its owner may read it.
        """
        if own and not root.is_symlink() and not os.access(root, _ENTERS):
            root.chmod(0o700)
        folder = Folder(os.open(root, _FOLDER if own else os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), root)
        for name in PurePosixPath(path).parts:
            with folder as outer:
                folder = outer.inner(name)
        return folder

    def inner(self, name: str) -> Folder:
        return Folder(self._opened(name, _FOLDER), self._path / name)

    def file(self, name: str) -> int:
        """Open a file in it and return its descriptor. The caller closes it, and checks that it is a plain file."""
        return self._opened(name, _FILE)

    def entry(self, name: str, path: str) -> Entry:
        """Return the entry of that name; `path` is the entry's."""
        return self._described(name, path, os.stat(name, dir_fd=self.fd, follow_symlinks=False))

    def entries(self, prefix: str) -> list[Entry]:
        """Return its entries, sorted by name, except those that vanish meanwhile; their paths begin with `prefix`."""
        with os.scandir(self.fd) as found:
            listed = sorted(found, key=lambda one: one.name)
        entries = []
        for one in listed:
            with contextlib.suppress(FileNotFoundError):
                entries.append(self._described(one.name, prefix + one.name, one.stat(follow_symlinks=False)))
        return entries

    def has(self, name: str) -> bool:
        """Say whether something of that name exists."""
        try:
            os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except OSError:
            return False
        return True

    def may_read(self, entry: Entry, name: str, *, own: bool) -> bool:
        """Say whether the process may read a file, or enter a folder.

        Args:
            own: open it to its owner first, if necessary; files of other users stay as they are.
        """
        if stat.S_ISLNK(entry.mode):
            return True
        needs = _ENTERS if stat.S_ISDIR(entry.mode) else os.R_OK
        if os.access(name, needs, dir_fd=self.fd):
            return True
        if own and (stat.S_ISDIR(entry.mode) or stat.S_ISREG(entry.mode)):
            added = stat.S_IRWXU if stat.S_ISDIR(entry.mode) else stat.S_IRUSR
            with contextlib.suppress(OSError):
                os.chmod(name, stat.S_IMODE(entry.mode) | added, dir_fd=self.fd)
        return os.access(name, needs, dir_fd=self.fd)

    def _opened(self, name: str, flags: int) -> int:
        try:
            return os.open(name, flags, dir_fd=self.fd)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path / name)) from None

    def _described(self, name: str, path: str, status: os.stat_result) -> Entry:
        link = os.readlink(name, dir_fd=self.fd) if stat.S_ISLNK(status.st_mode) else ""
        size = status.st_size if stat.S_ISREG(status.st_mode) else 0
        return Entry(path, status.st_mode, size, status.st_mtime_ns, link)

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


class TreeName(Struct, frozen=True):
    """A name of a tree, and its folder, which is open until the walk continues."""

    entry: Entry
    name: str
    folder: Folder


def walk(root: Path, excluded: Excluded, on_locked: Callable[[Entry], object] | None = None) -> Iterator[TreeName]:
    """Yield all that is in a folder, except what is excluded; folders come before what is in them. Raises OSError.

    Args:
        on_locked: receives each entry that the process can't read, which is left out. The folder is pccpipe's own, so
            the walk opens it to its owner. Without it the folder is the user's, and an unreadable entry is an error.
    """
    with Folder.of(root, own=on_locked is not None) as folder:
        yield from _walk(folder, "", excluded, on_locked)


def _walk(
    folder: Folder, prefix: str, excluded: Excluded, on_locked: Callable[[Entry], object] | None
) -> Iterator[TreeName]:
    for entry in folder.entries(prefix):
        is_folder = stat.S_ISDIR(entry.mode)
        if excluded.name(entry.path, is_folder=is_folder):
            continue
        name = entry.path[len(prefix) :]
        if on_locked and not folder.may_read(entry, name, own=True):
            if folder.has(name):
                on_locked(entry)
            continue
        yield TreeName(entry, name, folder)
        if is_folder:
            try:
                inner = folder.inner(name)
            except FileNotFoundError:
                continue  # it vanished meanwhile
            with inner:
                yield from _walk(inner, f"{entry.path}/", excluded, on_locked)


def incoming(folder: Path) -> Path:
    """Return the folder in which a download to `folder` gathers its files."""
    return folder.with_name(f".{folder.name}.incoming")


def remove_tree(path: Path) -> bool:
    """Remove a folder with all that is in it, even if its owner may not write there; of a link, the link alone.

    Returns whether nothing is left.
    """
    _remove(path)
    if not os.path.lexists(path):
        return True
    folders = [path]
    while folders:
        with contextlib.suppress(OSError):
            (folder := folders.pop()).chmod(stat.S_IRWXU)
            with os.scandir(folder) as found:
                folders += [Path(each) for each in found if each.is_dir(follow_symlinks=False)]
    _remove(path)
    return not os.path.lexists(path)


def _remove(path: Path) -> None:
    """Remove what can be removed. Python 3.11 does it recursively; rm has no limit of depth."""
    if path.is_symlink():
        path.unlink()
    with contextlib.suppress(RecursionError):
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        subprocess.run(["rm", "-rf", "--", path], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def _files(path: Path) -> Iterator[os.DirEntry[str]]:
    """Yield everything below a folder that can be read, of any depth; follows no link."""
    folders = [str(path)]
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                yield entry


def has_others_files(path: Path) -> bool:
    """Say whether something in a folder has another owner than the folder itself."""
    if path.is_symlink() or not path.is_dir():
        return False
    owner = path.stat().st_uid
    for entry in _files(path):
        with contextlib.suppress(OSError):
            if entry.stat(follow_symlinks=False).st_uid != owner:
                return True
    return False


def tree_size(path: Path) -> int:
    """Count the bytes of the files in a folder; unreadable ones count as 0."""
    total = 0
    for entry in _files(path):
        with contextlib.suppress(OSError):
            if not entry.is_dir(follow_symlinks=False):
                total += entry.stat(follow_symlinks=False).st_size
    return total


def pieces(fd: int, count: int) -> Iterator[bytes]:
    """Read at most `count` bytes of a file that may grow meanwhile."""
    while count and (data := os.read(fd, min(PIECE, count))):
        count -= len(data)
        yield data
