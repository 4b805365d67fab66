"""The relay for images without Node, on this machine; end-to-end tests use the one with Node."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pccpipe.docker_api import relay
from pccpipe.machine.base import ByteStream
from pccpipe.machine.listening import SocketListener, listen_at


def echo(stream: ByteStream) -> None:
    def run() -> None:
        while data := stream.recv(1000):
            stream.sendall(data)
        stream.close()

    threading.Thread(target=run, daemon=True).start()


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    program, file = tmp_path / "relay", tmp_path / "port"
    program.write_bytes(relay.files()[".relay.python3"])
    process = subprocess.Popen([sys.executable, program, tmp_path / "socket", file])
    until = time.monotonic() + 20
    while not file.exists() and time.monotonic() < until:
        time.sleep(0.02)
    yield int(file.read_text())
    process.kill()
    process.wait()


def served(folder: Path) -> SocketListener:
    return listen_at(str(folder / "socket"), echo)


def test_the_relay_connects_a_port_to_the_socket_and_waits_for_a_missing_one(tmp_path: Path, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"early")
        time.sleep(0.3)
        there = served(tmp_path)
        assert client.recv(100) == b"early"
        client.sendall(b"later")
        assert client.recv(100) == b"later"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b""
    there.close()


def test_a_new_socket_ends_the_connections_to_the_old_one(tmp_path: Path, port: int) -> None:
    there = served(tmp_path)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"x")
        assert client.recv(100) == b"x"
        new = served(tmp_path)
        assert client.recv(100) == b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"y")
        assert client.recv(100) == b"y"
    there.close()
    new.close()
    assert (tmp_path / "socket").stat().st_mode & 0o777 == 0o600
