"""Play the other side of a connection, with the fuzzer's bytes as its every word."""

from __future__ import annotations

import os

from pccpipe.machine.base import ByteStream, Done, Facts, Process

NEXT = b"\xfe\xfe"
"""The end of one answer; the next call gets the bytes after it."""
FAILS = b"\xfd"
"""The beginning of the answer of a script that ends with the code after it."""
_PIECE = 1000


class FuzzedStream:
    """A connection that gives the bytes, in pieces, and then ends. It accepts everything."""

    def __init__(self, data: bytes, piece: int = _PIECE) -> None:
        self._piece = piece
        self._data = memoryview(data)
        self._readable = os.open("/dev/null", os.O_RDONLY)
        self._closed = False
        self.sent: list[bytes] = []

    def fileno(self) -> int:
        return self._readable

    def recv(self, size: int) -> bytes:
        piece = bytes(self._data[: min(size, self._piece)])
        self._data = self._data[len(piece) :]
        return piece

    def recv_stderr(self, size: int) -> bytes:
        return b""

    def ready(self, timeout: float) -> tuple[bool, bool]:
        return True, True

    def wait(self, timeout: float) -> int:
        return 0

    def sendall(self, data: bytes) -> None:
        self.sent.append(data)

    def settimeout(self, seconds: float | None) -> None:
        return

    def shutdown_write(self) -> None:
        return

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            os.close(self._readable)

    def __del__(self) -> None:
        self.close()


class FuzzedMachine:
    """A machine that answers with the next part of the given bytes, and repeats the last one."""

    host = "vm"
    facts = Facts(1000, 1000, "user", "/home/user", "Linux", has_engine=True)

    def __init__(self, data: bytes, piece: int = _PIECE) -> None:
        self._piece = piece
        self._answers = data.split(NEXT)

    def popen(self, command: str) -> Process:
        return FuzzedStream(self._next(), self._piece)

    def run(self, script: str, timeout: float = 60.0) -> Done:
        said = self._next()
        if said.startswith(FAILS):
            return Done(said[1] if len(said) > 1 else 1, said[2:], said[2:])
        return Done(0, said, b"")

    def dial(self, path: str, timeout: float = 10.0) -> ByteStream:
        return FuzzedStream(self._next(), self._piece)

    def _next(self) -> bytes:
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
