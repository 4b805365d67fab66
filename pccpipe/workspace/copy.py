"""The run's copy of the code at home, and what of a tree may be in it."""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass, field
from pathlib import Path

from pccpipe.errors import ActionError
from pccpipe.workspace.exclude import Excluded


@dataclass(slots=True)
class Counted:
    """What was copied or brought."""

    files: int = 0
    bytes: int = 0
    refused: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may come back from a VM. Sizes in bytes."""

    files: int = 200_000
    bytes: int = 8 << 30
    file: int = 2 << 30


def copy_tree(source: Path, target: Path, excluded: Excluded) -> Counted:
    """Copy a folder, whole or not at all: links as links, modes and times kept, what is excluded or no file left out.

    Raises ActionError naming the file that can't be read or written.
    """
    unfinished = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    counted = Counted()
    try:
        unfinished.mkdir(parents=True)
        _copy_folder(source, unfinished, "", excluded, counted)
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise ActionError(f"the workspace cannot be copied: {error.filename or source}: {error.strerror}") from error
    return counted


def _copy_folder(source: Path, target: Path, relative: str, excluded: Excluded, counted: Counted) -> None:
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
                _copy_folder(Path(entry.path), to, f"{name}/", excluded, counted)
                shutil.copystat(entry.path, to, follow_symlinks=False)
            elif entry.is_file(follow_symlinks=False):
                _copy_file(Path(entry.path), to, excluded, counted)


def _copy_file(source: Path, target: Path, excluded: Excluded, counted: Counted) -> None:
    with source.open("rb") as file:
        if excluded.is_private_key(file.read(4096)):
            return
    shutil.copy2(source, target, follow_symlinks=False)
    counted.files += 1
    counted.bytes += target.lstat().st_size


def vet_tree(tree: Path, limits: Limits) -> Counted:
    """Take out of a tree that came from a VM what may not be in it; count the rest. Links are never followed.

    Raises ActionError when it is more than the limits allow.
    """
    counted = Counted()
    for folder, folders, files in os.walk(tree, followlinks=False):
        for name in [*folders, *files]:
            path = Path(folder) / name
            shown = str(path.relative_to(tree))
            status = path.lstat()
            why = _refusal(path, tree, status, limits)
            if why:
                counted.refused.append(f"{shown!r}: {why}")
                path.unlink()
                continue
            if stat.S_ISDIR(status.st_mode):
                continue
            counted.files += 1
            counted.bytes += status.st_size
            if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
                path.chmod(stat.S_IMODE(status.st_mode) & 0o777)
        if counted.files > limits.files:
            raise ActionError(f"the VM's copy has over {limits.files} files; exclude what need not come home")
        if counted.bytes > limits.bytes:
            raise ActionError(f"the VM's copy has over {limits.bytes >> 20} MiB; exclude what need not come home")
    return counted


def _refusal(path: Path, tree: Path, status: os.stat_result, limits: Limits) -> str:
    mode = status.st_mode
    if stat.S_ISLNK(mode):
        target = str(path.readlink())
        # Judged by its text alone: what it leads to now is not what it may lead to later.
        inside = os.path.normpath(path.parent.relative_to(tree) / target)
        return f"a link to {target!r}, out of the tree" if target.startswith("/") or inside.startswith("..") else ""
    if stat.S_ISDIR(mode):
        return ""
    if not stat.S_ISREG(mode):
        return "no plain file"
    return f"over {limits.file >> 20} MiB" if status.st_size > limits.file else ""


def link_tree(source: Path, target: Path, leave_out: frozenset[Path]) -> None:
    """The tree again, of hard links to the same files; `leave_out` has paths relative to it."""
    target.mkdir()
    for folder, folders, files in os.walk(source, followlinks=False):
        relative = Path(folder).relative_to(source)
        for name in folders:
            path = Path(folder) / name
            if path.is_symlink():
                files.append(name)
            else:
                (target / relative / name).mkdir()
        for name in files:
            if relative / name not in leave_out:
                os.link(Path(folder) / name, target / relative / name, follow_symlinks=False)
