"""Takes connections from programs on this machine, in a thread, until `close`."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from pccpipe.errors import Unavailable
from pccpipe.machine.base import ByteStream
from pccpipe.machine.local_stream import LocalStream
from pccpipe.outcome import Reason

BACKLOG = 64
ADDRESS = 100
"""Bytes in the path of a Unix socket that every system accepts."""


class SocketListener:
    """A `Listener`."""

    def __init__(self, server: socket.socket, accept: Callable[[ByteStream], None], port: int = 0) -> None:
        self.port = port
        self._server = server
        self._accept = accept
        server.listen(BACKLOG)
        threading.Thread(target=self._run, name="pccpipe-listen", daemon=True).start()

    def close(self) -> None:
        # A close alone would not wake the thread.
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _run(self) -> None:
        while True:
            try:
                connected, _ = self._server.accept()
            except OSError:
                return
            self._accept(LocalStream(connected))


def listen_at(path: str, accept: Callable[[ByteStream], None]) -> SocketListener:
    """Listen at a Unix socket that only this user may connect to. Raises `Unavailable`."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    folder, name = os.path.split(path)
    new = f"{name}.{uuid.uuid4().hex[:8]}"
    try:
        with _short(folder, new) as short:
            server.bind(f"{short}/{new}")
        Path(folder, new).chmod(0o600)
        Path(folder, new).replace(path)
        return SocketListener(server, accept)
    except OSError as error:
        server.close()
        raise Unavailable(Reason.PROXY_REFUSED, f"listen at {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def _short(folder: str, name: str) -> Iterator[str]:
    """Give a path of the folder that leaves room for the name: a socket's address on a Mac has 104 bytes."""
    if len(os.fsencode(f"{folder}/{name}")) < ADDRESS:
        yield folder
        return
    # A link, because the folder may be on another file system than any short path.
    around = tempfile.mkdtemp(prefix="pcc-", dir="/tmp")
    link = Path(around, "f")
    try:
        link.symlink_to(folder)
        yield str(link)
    finally:
        link.unlink(missing_ok=True)
        Path(around).rmdir()


def listen_on(port: int, accept: Callable[[ByteStream], None]) -> SocketListener:
    """Listen at a port of 127.0.0.1. Raises `Unavailable`."""
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind(("127.0.0.1", port))
        return SocketListener(server, accept, server.getsockname()[1])
    except OSError as error:
        server.close()
        raise Unavailable(Reason.PROXY_REFUSED, f"listen at 127.0.0.1:{port}: {error.strerror or error}") from error
