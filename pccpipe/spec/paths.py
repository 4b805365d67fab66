"""Paths of the files that a pipeline or project file names."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from pccpipe.errors import LimitExceeded
from pccpipe.limits import Limit


def beside(folder: Path, name: str) -> Path:
    """Return the path of a name: `~` is a home folder, and a relative path begins at `folder`.

    Raises ValueError for an impossible name; its message ends a sentence that begins with "the path".
    """
    if "\0" in name:
        raise ValueError("contains a NUL character")
    try:
        return folder / Path(name).expanduser()
    except RuntimeError:
        raise ValueError("begins with an unknown home folder") from None


def read_file(path: Path, limit: Limit) -> bytes:
    """Read a file that may be large or endless. Raises OSError, LimitExceeded."""
    with path.open("rb") as file:
        return read_limited(file, limit, str(path))


def read_limited(file: BinaryIO, limit: Limit, name: str) -> bytes:
    """Read an open file to its end. Raises OSError; LimitExceeded, which has its `name`."""
    data = file.read(limit.most + 1)
    if len(data) > limit.most:
        raise LimitExceeded(limit, name)
    return data


def read_text(path: Path, limit: Limit) -> str:
    """Read such a file as text with `\\n` line ends. Raises OSError, UnicodeDecodeError, LimitExceeded."""
    return read_file(path, limit).decode().replace("\r\n", "\n").replace("\r", "\n")


def is_file(path: Path) -> bool:
    """Say whether the file exists; a path that is too long for the system names none."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Say whether the folder exists, likewise."""
    try:
        return path.is_dir()
    except OSError:
        return False
