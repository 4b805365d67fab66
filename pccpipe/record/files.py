"""Writing files so that nobody ever reads half of one, and that a power cut leaves them."""

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
"""What file systems say that know no such call."""


def sync(fd: int) -> None:
    """Give a file's content to the disk, after what was given before. Raises OSError.

    On Linux it outlives a power cut then. On macOS it may still lie in the disk's cache: `sync_through` goes further.
    """
    _sync(fd, _BARRIER)


def sync_through(fd: int) -> None:
    """The same, so that it outlives a power cut everywhere, and so does all that was synced on that disk before.

    It takes milliseconds on macOS: for what is followed by throwing something away. Raises OSError.
    """
    _sync(fd, _FULL)


def _sync(fd: int, on_macos: int) -> None:
    # fsync stops at the disk's cache there (fsync(2) of macOS), and fdatasync does not exist.
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
    """Give a file to write that replaces the one at `path` when the block ends well, as `write_atomically` does."""
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
