"""Keeps everything that a command writes to one of its streams in a file."""

from __future__ import annotations

import errno
import fcntl
import os

PIECE = 256 << 10
"""Bytes that it reads at a time, and the size of a pipe: a command that writes much then waits less often."""
_LARGEST_PIPE = 1 << 20
"""Bytes to which a command can enlarge its pipe: `fs.pipe-max-size` of Linux."""
_FULL = {errno.ENOSPC, errno.EDQUOT}


class Spool:
    """One stream: the read end of its pipe, and its file.

    On a full disk it stops reading, and also if `most_unread` bytes in the file are unread: pccpipe may be gone. The
    command then waits, as it does for any slow reader.
    """

    def __init__(self, path: str, most_unread: int) -> None:
        self.size = 0
        """Bytes in the file."""
        self._read_to = 0
        self._most_unread = most_unread
        self.lost = False
        """True if it could not keep some of the stream."""
        self.is_watched = False
        """True while the loop polls the pipe."""
        self._held = b""
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self.pipe, self.source = os.pipe()
        except OSError:
            os.close(self._file)
            raise
        os.set_blocking(self.pipe, False)
        try:
            fcntl.fcntl(self.pipe, fcntl.F_SETPIPE_SZ, PIECE)
        except (AttributeError, OSError):
            pass  # not on macOS, nor where the user has many such pipes
        self.number = self.pipe
        self.name = f"pipe:[{os.fstat(self.pipe).st_ino}]"
        """The name of the pipe in /proc."""

    @property
    def is_open(self) -> bool:
        """True while more output may come."""
        return self.pipe >= 0

    @property
    def is_held(self) -> bool:
        """True while it waits for room on the disk."""
        return bool(self._held)

    @property
    def is_ahead(self) -> bool:
        """True while it waits for its reader."""
        return self.size - self._read_to >= self._most_unread

    def was_read(self, end: int) -> None:
        """Record that nobody waits for the bytes before `end`. A reader that resumes a run begins at 0 again."""
        self._read_to = max(self._read_to, min(end, self.size))

    def begun(self) -> None:
        """Close our copy of the write end: the command has its own now."""
        source, self.source = self.source, -1
        if source >= 0:
            os.close(source)

    def say(self, data: bytes) -> None:
        """Write words of the supervisor itself."""
        self._write(data)

    def read(self, *, at_end: bool = False) -> bool:
        """Move a piece from the pipe to the file; return whether more may be there. It closes itself at the end.

        Args:
            at_end: the command has ended, so what its pipe still holds needs no reader.
        """
        if self._held:
            data, self._held = self._held, b""
            self._write(data)
            if self._held:
                return False
        if self.size - self._read_to >= self._most_unread + (_LARGEST_PIPE if at_end else 0):
            return False
        try:
            data = os.read(self.pipe, PIECE)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.close()
            return False
        self._write(data)
        return not self._held

    def close(self) -> None:
        """Stop reading, and close the file."""
        pipe, self.pipe = self.pipe, -1
        if pipe < 0:
            return
        os.close(pipe)
        self.begun()
        if self._held:
            self.lost, self._held = True, b""
        os.close(self._file)

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            try:
                written = os.write(self._file, left)
            except InterruptedError:
                continue
            except OSError as error:
                if error.errno in _FULL:
                    self._held = bytes(left)
                else:
                    self.lost = True
                return
            self.size += written
            left = left[written:]
