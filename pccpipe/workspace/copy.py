"""Trees on this machine: the run's copy of the user's folder, what a download takes of it, and trees of hard links.

Folders are read by descriptor and nothing is opened through a link: a container may write to the copy meanwhile.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from pccpipe.errors import ActionError
from pccpipe.secrets.mask import Masker
from pccpipe.workspace.exclude import Excluded
from pccpipe.workspace.guard import Guard
from pccpipe.workspace.intake import Counted, Entry, Intake, Limits

PIECE = 256 * 1024
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A FIFO in a file's place is not waited for.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def copy_tree(source: Path, target: Path, excluded: Excluded, guard: Guard | None = None) -> Counted:
    """Copy a folder, whole or not at all: links as links, modes and times kept, what is excluded or no file left out.

    Args:
        guard: looks at each file; without one, nothing is held back.

    Raises ActionError naming the file that can't be read or written, or that may not leave this machine.
    """
    unfinished = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    counted = Counted()
    try:
        unfinished.mkdir(parents=True)
        _copy_folder(source, unfinished, "", excluded, guard, counted)
        if guard:
            guard.check()
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)
    except OSError as error:
        raise ActionError(f"the workspace cannot be copied: {error.filename or source}: {error.strerror}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return counted


def _copy_folder(
    source: Path, target: Path, relative: str, excluded: Excluded, guard: Guard | None, counted: Counted
) -> None:
    with os.scandir(source) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            name = f"{relative}{entry.name}"
            is_folder = entry.is_dir(follow_symlinks=False)
            if excluded.name(name, is_folder=is_folder):
                continue
            to = target / entry.name
            if entry.is_symlink():
                to.symlink_to(Path(entry.path).readlink())
                counted.files += 1
            elif is_folder:
                to.mkdir()
                _copy_folder(Path(entry.path), to, f"{name}/", excluded, guard, counted)
                shutil.copystat(entry.path, to, follow_symlinks=False)
            elif entry.is_file(follow_symlinks=False):
                if guard:
                    guard.look_at(name, Path(entry.path))
                shutil.copy2(entry.path, to, follow_symlinks=False)
                counted.files += 1
                counted.bytes += to.lstat().st_size


def take_paths(source: Path, paths: Sequence[str], target: Path, limits: Limits, masker: Masker) -> Counted:
    """Make `target`, anew, of these files and folders of a folder here, judged and masked as those of a VM.

    Raises ActionError.
    """
    intake = Intake(target, limits, masker)
    try:
        for path in paths:
            intake.root(path)
            folder, _, name = path.rpartition("/")
            with _Folder.of(source, folder) as parent:
                _take(parent, name, path, intake)
    except OSError as error:
        raise ActionError(f"{error.filename or source} cannot be brought: {error.strerror}") from error
    return intake.finish()


def are_missing(source: Path, paths: Sequence[str]) -> list[str]:
    """Those of the paths that are not there, or are reached only through a link."""
    return [path for path in paths if not _is_there(source, path)]


def _is_there(source: Path, path: str) -> bool:
    folder, _, name = path.rpartition("/")
    try:
        with _Folder.of(source, folder) as parent:
            os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
    except OSError:
        return False
    return True


def _take(parent: _Folder, name: str, path: str, intake: Intake) -> None:
    status = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
    link = os.readlink(name, dir_fd=parent.fd) if stat.S_ISLNK(status.st_mode) else ""
    if not intake.admit(Entry(path, status.st_mode, status.st_size, status.st_mtime_ns, link)):
        return
    if stat.S_ISDIR(status.st_mode):
        with parent.inner(name) as folder:
            with os.scandir(folder.fd) as entries:
                names = sorted(entry.name for entry in entries)
            for inner in names:
                _take(folder, inner, f"{path}/{inner}", intake)
    elif stat.S_ISREG(status.st_mode):
        with os.fdopen(os.open(name, _FILE, dir_fd=parent.fd), "rb") as file:
            opened = os.fstat(file.fileno())
            if stat.S_ISREG(opened.st_mode):
                intake.write(path, opened.st_size, _pieces(file.fileno(), opened.st_size))


def _pieces(fd: int, count: int) -> Iterator[bytes]:
    """So many bytes of a file that may grow meanwhile."""
    while count and (data := os.read(fd, min(PIECE, count))):
        count -= len(data)
        yield data


class _Folder:
    """An open folder; a context manager."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @staticmethod
    def of(root: Path, path: str) -> _Folder:
        """The folder at `path` under `root`, through no link."""
        folder = _Folder(os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        for name in PurePosixPath(path).parts:
            with folder as outer:
                folder = outer.inner(name)
        return folder

    def inner(self, name: str) -> _Folder:
        return _Folder(os.open(name, _FOLDER, dir_fd=self.fd))

    def __enter__(self) -> _Folder:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def link_tree(source: Path, target: Path, leave_out: frozenset[Path], limits: Limits) -> Counted:
    """The tree again, of hard links to its plain files and links; `leave_out` has paths relative to it.

    Raises ActionError when it has more files than the limit.
    """
    target.mkdir()
    counted = Counted()
    for folder, folders, files, fd in os.fwalk(source, follow_symlinks=False):
        relative = Path(folder).relative_to(source)
        for name in list(folders):
            if stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                files.append(name)
            else:
                (target / relative / name).mkdir()
        for name in files:
            if relative / name in leave_out:
                continue
            made = target / relative / name
            os.link(name, made, src_dir_fd=fd, follow_symlinks=False)
            status = made.lstat()
            if why := _no_part_of_a_diff(status, limits):
                made.unlink()
                counted.refuse(str(relative / name), why)
                continue
            counted.files += 1
            if counted.files > limits.files:
                raise ActionError(
                    f"the workspace has over {limits.files:,} files, which is the limit for a diff",
                    "exclude what is no work (`exclude:` of the upload), or remove it in the step that makes it",
                )
    return counted


def _no_part_of_a_diff(status: os.stat_result, limits: Limits) -> str:
    if stat.S_ISLNK(status.st_mode):
        return ""
    if not stat.S_ISREG(status.st_mode):
        return "no plain file"
    return f"over {limits.file >> 20} MiB, the limit of a file" if status.st_size > limits.file else ""
