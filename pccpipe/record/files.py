"""Writes files whole: nobody reads half of one, and they survive a power cut."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_FULL, _BARRIER = 51, 85
"""macOS's F_FULLFSYNC and F_BARRIERFSYNC (<sys/fcntl.h>); Python has no name for the second."""
_NO_SUCH = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY}
"""The errors of file systems that do not support the call."""


def sync(fd: int) -> None:
    """Write a file's content to the disk, after all that was synced before. Raises OSError.

    On Linux it then survives a power cut. On macOS it may still be in the disk's cache: see `sync_through`.
    """
    _sync(fd, _BARRIER)


def sync_through(fd: int) -> None:
    """Do the same, also through the disk's cache: it and all synced before survive a power cut on every system.

    It takes milliseconds on macOS. Use it before discarding the other copy. Raises OSError.
    """
    _sync(fd, _FULL)


def _sync(fd: int, on_macos: int) -> None:
    # On macOS, fsync stops at the disk's cache (fsync(2)), and fdatasync does not exist.
    if os.uname().sysname == "Darwin":
        try:
            fcntl.fcntl(fd, on_macos)
        except OSError as error:
            if error.errno not in _NO_SUCH:
                raise
        else:
            return
    getattr(os, "fdatasync", os.fsync)(fd)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace the file at `path` with `data`, synced, whole or not at all; makes its folder. Mode 0600."""
    with replacing(path) as file:
        file.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file that replaces the one at `path` if the block ends well, as `write_atomically` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            yield file
            file.flush()
            sync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
