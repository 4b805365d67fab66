"""Reads the output of a command on a machine in pieces, and keeps the beginning of its stderr."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pccpipe import limits
from pccpipe.errors import ActionError
from pccpipe.machine.base import Machine
from pccpipe.machine.entering import check_entered, enter

PIECE = 256 * 1024
SILENCE = 120.0
"""Seconds that the machine may be silent during a transfer."""


class WorkspaceReader:
    """Starts `command` in a run's workspace on the machine and reads its output. A context manager, which closes it."""

    def __init__(self, machine: Machine, folder: str, command: str) -> None:
        self.process = machine.popen(f"export LC_ALL=C; {enter(folder)}exec {command}")
        self.process.settimeout(SILENCE)
        self._host = machine.host
        self._folder = folder
        self._unread = b""
        self._stderr = b""
        self._open = [True, True]

    def __enter__(self) -> WorkspaceReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.close()

    def some(self) -> bytes:
        """Return the next bytes, as many as there are; empty at the end. Raises TimeoutError, ConnectionError."""
        if self._unread:
            data, self._unread = self._unread, b""
            return data
        while self._open[0]:
            stdout, stderr = self.process.ready(SILENCE)
            if not stdout and not stderr:
                raise TimeoutError(f"{self._host} was silent for {SILENCE:g} s")
            if stderr and self._open[1]:
                self._read_stderr()
            if stdout:
                data = self.process.recv(PIECE)
                self._open[0] = bool(data)
                return data
        return b""

    def exactly(self, count: int) -> bytes:
        """Read `count` bytes, or fewer at the end."""
        return b"".join(self.pieces(count))

    def pieces(self, count: int) -> Iterator[bytes]:
        """Read `count` bytes in pieces, or fewer at the end."""
        while count and (data := self.some()):
            if len(data) > count:
                data, self._unread = data[:count], data[count:]
            count -= len(data)
            yield data

    def _read_stderr(self) -> None:
        data = self.process.recv_stderr(PIECE)
        self._open[1] = bool(data)
        self._stderr = (self._stderr + data)[: limits.MACHINE_WORDS.most]

    def check(self, program: str, what: str, harmless: Sequence[str] = ()) -> None:
        """Raise ActionError with the command's words if it failed, unless all of its lines are `harmless`.

        Raises WorkspaceGone if it could not enter the workspace.
        """
        left = limits.TRANSFER_END.most
        while data := self.some():
            left -= len(data)
            if left < 0:
                raise ActionError(f"{self._host} sends more than was asked for, without end")
        while self._open[1]:
            self._read_stderr()
        code = self.process.wait(SILENCE)
        check_entered(self._host, self._folder, code)
        words = self._stderr.decode("utf-8", "replace").strip()
        serious = [line for line in words.splitlines() if not any(text in line for text in harmless)]
        if code and (serious or not words):
            raise ActionError(f"{program} could not {what} on {self._host}: {words or f'exit code {code}'}")
