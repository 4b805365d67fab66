"""Frees the disk of a part of a file, which then reads as zeros."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import sys

_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_F_PUNCHHOLE = 99
_BLOCK = 4096


def punch(path: str, start: int, size: int) -> None:
    """Free these bytes, if the file system can do that."""
    # Only whole blocks can be freed, and macOS takes nothing else.
    first, end = -(-start // _BLOCK) * _BLOCK, (start + size) // _BLOCK * _BLOCK
    if end <= first:
        return
    with contextlib.suppress(OSError, AttributeError):
        file = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if sys.platform == "darwin":
                fcntl.fcntl(file, _F_PUNCHHOLE, struct.pack("IIqq", 0, 0, first, end - first))
            else:
                _fallocate(file, first, end - first)
        finally:
            os.close(file)


def _fallocate(file: int, start: int, size: int) -> None:
    # It is imported here because only a flood needs it.
    import ctypes

    call = ctypes.CDLL(None, use_errno=True).fallocate
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    call(file, _KEEP_SIZE | _PUNCH_HOLE, start, size)
