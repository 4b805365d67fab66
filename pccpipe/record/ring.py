"""Keeps the last bytes of a stream of any length, in a file of limited size."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path

from pccpipe.record.room import Room

PIECE = 1 << 20
"""Bytes to read at a time."""


class Ring:
    """Keeps the last `size` bytes that were written to it. `close` removes its file."""

    def __init__(self, path: Path, size: int, room: Room) -> None:
        self._room = room
        self._path = path
        self._size = max(1, size)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        self._lines = 0
        self._most = self._size
        self.total = 0
        """The number of bytes that were written since it was made, or cleared."""

    @property
    def dropped(self) -> int:
        """The number of bytes that were written and dropped again."""
        return max(0, self.total - self._most)

    @property
    def dropped_lines(self) -> int:
        """The number of line ends in the dropped bytes."""
        return self._lines - sum(piece.count(b"\n") for piece in self.kept())

    def write(self, data: bytes) -> None:
        """Add bytes, and drop the oldest ones."""
        self._lines += data.count(b"\n")
        left = memoryview(data)
        if len(left) > self._size:
            self.total += len(left) - self._size
            left = left[-self._size :]
        while left:
            at = self.total % self._size
            piece = left[: self._size - at]
            done = self._room.made(functools.partial(os.pwrite, self._fd, piece, at))
            self.total += done
            left = left[done:]

    def keep(self, most: int) -> None:
        """Drop all but the last `most` bytes. Not to be written to after that."""
        self._most = min(self._most, most)

    def clear(self) -> None:
        """Drop all bytes."""
        self.total = self._lines = 0

    def kept(self) -> Iterator[bytes]:
        """Yield the kept bytes, in order and piece by piece."""
        at = self.dropped
        while at < self.total:
            place = at % self._size
            piece = os.pread(self._fd, min(PIECE, self._size - place, self.total - at), place)
            if not piece:
                raise OSError(f"{self._path} was cut")
            at += len(piece)
            yield piece

    def close(self) -> None:
        """Remove the file."""
        os.close(self._fd)
        self._path.unlink(missing_ok=True)
