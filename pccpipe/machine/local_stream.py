"""Sends and receives over a socket of this machine."""

from __future__ import annotations

import contextlib
import socket


class LocalStream:
    """A connected socket as a `ByteStream`."""

    def __init__(self, stream: socket.socket) -> None:
        self._socket = stream

    def fileno(self) -> int:
        return self._socket.fileno()

    def recv(self, size: int) -> bytes:
        return self._socket.recv(size)

    def sendall(self, data: bytes) -> None:
        self._socket.sendall(data)

    def settimeout(self, seconds: float | None) -> None:
        self._socket.settimeout(seconds)

    def shutdown_write(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        # A close alone would not wake a thread that is reading.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
