"""python -m tests.floods KIND: starts a server that sends without an end, in a separate process; prints its port.

`ssh` accepts any login and ignores the channel's window. The others are a model's API with one answer that never ends.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Iterator

import paramiko
from paramiko.common import AUTH_SUCCESSFUL, OPEN_SUCCEEDED

MOST = 200 << 20
"""Bytes that it sends to a client that reads everything."""
_LINE = b"x" * 65536
_OK = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = _OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
ANSWERS = {
    "head": (_OK + b"X: ", _LINE),
    "headers": (_OK, b"X: y\r\n" * 10_000),
    "interim": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2500),
    "chunk-extension": (_CHUNKED + b"2;x=", _LINE),
    "event": (_CHUNKED, b"10000\r\n" + _LINE + b"\r\n"),
    "events": (_CHUNKED, b"12000\r\n" + b'data: {"usage":1}\n' * 4096 + b"\r\n"),
    "brackets": (_OK + b"Content-Type: application/json\r\n\r\n" + b'{"usage":[', b"[]," * 20_000),
    "secret": (_OK + b"Content-Type: application/json\r\n\r\n", b"s3cret/Of+the=proje" * 3000),
}
"""The beginning of an answer, and the bytes that follow again and again."""
SMALL = {"events": 4 << 20}
"""Fewer bytes, for answers whose every byte costs work: they show the same."""


def main() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        stream, _ = listener.accept()
    with contextlib.suppress(EOFError, OSError, paramiko.SSHException):
        _flood_ssh(stream) if sys.argv[1] == "ssh" else _flood(stream, sys.argv[1])
    return 0


class _Open(paramiko.ServerInterface):
    """Accepts any login."""

    def check_auth_none(self, username: str) -> int:
        return AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED


def _flood_ssh(stream: socket.socket) -> None:
    server = paramiko.Transport(stream)
    server.add_server_key(paramiko.ECDSAKey.generate())
    server.start_server(threading.Event(), _Open())
    channel = server.accept(20)
    assert channel is not None
    assert channel.recv(1) == b"!"
    channel.out_window_size = 1 << 30
    sent = 0
    while sent < MOST:
        sent += channel.send(b"x" * 32_000)


def _flood(stream: socket.socket, kind: str) -> None:
    stream.recv(65536)
    for piece in _pieces(kind):
        stream.sendall(piece)
    stream.shutdown(socket.SHUT_WR)
    stream.recv(1)


def _pieces(kind: str) -> Iterator[bytes]:
    begin, again = ANSWERS[kind]
    yield begin
    for _ in range(SMALL.get(kind, MOST) // len(again)):
        yield again


if __name__ == "__main__":
    sys.exit(main())
