"""The connection's socket, which notices a peer that has fallen silent.

paramiko sends keep-alives and ignores whether an answer comes: a connection whose peer disappears stays "active" for
ever. Its thread calls `recv` ten times a second, so the socket can notice silence without a thread of its own. After
`SILENCE_LIMIT` seconds without any data, it reads and writes as closed.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator

import paramiko

PING_INTERVAL = 15.0
"""Seconds without traffic after which pccpipe asks the server for a sign of life."""
SILENCE_LIMIT = 45.0
AHEAD = 128 * 1024
"""Bytes read from the kernel at a time. paramiko reads a packet's length and then its rest, and each call waits for
the interpreter's lock."""


_QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)
"""Only Linux has it."""
_DROP_TIME = 0x80
"""macOS's TCP_RXT_CONNDROPTIME (<netinet/tcp.h>), in seconds; Python has no name for it."""


class HeardSocket:
    """Wraps a connected TCP socket, or the channel through a jump host, for a `paramiko.Transport`."""

    def __init__(self, inner: socket.socket | paramiko.Channel) -> None:
        self._inner = inner
        self._ahead = memoryview(bytearray(AHEAD))
        self._given = self._taken = 0
        """The bytes of `_ahead` that paramiko has, and those that are there."""
        self._heard = time.monotonic()
        self.fell_silent = False
        self._patience = 0.0
        # paramiko reads this attribute of a socket.
        self._closed = False

    @property
    def quiet_for(self) -> float:
        """The seconds since the last data."""
        return time.monotonic() - self._heard

    def recv(self, size: int) -> bytes:
        if self._given == self._taken and not self._fill():
            return b""
        start, self._given = self._given, min(self._given + size, self._taken)
        return bytes(self._ahead[start : self._given])

    def _fill(self) -> int:
        try:
            if isinstance(self._inner, socket.socket):
                taken = self._inner.recv_into(self._ahead)
            else:
                data = self._inner.recv(AHEAD)
                taken = len(data)
                self._ahead[:taken] = data
        except TimeoutError:
            if self._is_silent():
                return 0
            raise
        self._given, self._taken = 0, taken
        self._heard = time.monotonic()
        if isinstance(self._inner, socket.socket) and _QUICK_ACK is not None:
            # sshd holds a second small packet back until the kernel acknowledges the first, which takes 40 ms: at the
            # first session of each login. The option does not last (tcp(7)).
            self._inner.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
        return taken

    def send(self, data: bytes) -> int:
        try:
            return self._inner.send(data)
        except TimeoutError:
            if self._is_silent():
                raise ConnectionAbortedError("the server did not answer") from None
            raise

    def settimeout(self, seconds: float | None) -> None:
        self._inner.settimeout(seconds)

    def close(self) -> None:
        self._inner.close()
        self._closed = True

    @contextlib.contextmanager
    def waiting(self, seconds: float) -> Iterator[None]:
        """Allow the server this many seconds of silence, before it answers pings; its kernel must still acknowledge."""
        self._patience = seconds
        self._abandon_after(SILENCE_LIMIT)
        try:
            yield
        finally:
            self._patience = 0.0
            self._heard = time.monotonic()
            self._abandon_after(0)

    def _abandon_after(self, seconds: float) -> None:
        if isinstance(self._inner, socket.socket):
            with contextlib.suppress(OSError):
                if hasattr(socket, "TCP_USER_TIMEOUT"):
                    self._inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * seconds))
                elif os.uname().sysname == "Darwin":
                    self._inner.setsockopt(socket.IPPROTO_TCP, _DROP_TIME, int(seconds))

    def _is_silent(self) -> bool:
        limit = max(SILENCE_LIMIT, self._patience)
        self.fell_silent = self.fell_silent or time.monotonic() - self._heard > limit
        return self.fell_silent
