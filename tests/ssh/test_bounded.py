"""A server that sends more than it may is cut off, before it fills the memory."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import paramiko
import pytest
from paramiko.common import AUTH_SUCCESSFUL, DEFAULT_WINDOW_SIZE, OPEN_SUCCEEDED

from pccpipe import limits
from pccpipe.ssh import bounded
from pccpipe.ssh.heard import HeardSocket
from pccpipe.ssh.transport import Transport


class Hostile(paramiko.ServerInterface):
    """A server that accepts every login."""

    def check_auth_none(self, username: str) -> int:
        return AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        return True


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = socket.create_connection(listener.getsockname())
        there, _ = listener.accept()
    here.settimeout(0.1)
    return here, there


@contextmanager
def connected() -> Iterator[tuple[Transport, paramiko.Transport]]:
    here, there = tcp_pair()
    server = paramiko.Transport(there)
    server.add_server_key(paramiko.ECDSAKey.generate())
    server.start_server(threading.Event(), Hostile())
    client = Transport(HeardSocket(here))
    client.start_client(timeout=20)
    client.auth_none("anyone")
    try:
        yield client, server
    finally:
        client.close()
        server.close()


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_server_that_ignores_the_window_is_cut_off(stream: str) -> None:
    with connected() as (client, server):
        channel = client.open_session(timeout=20)
        theirs = server.accept(20)
        assert theirs is not None
        theirs.out_window_size = 1 << 30
        send = theirs.send if stream == "stdout" else theirs.send_stderr
        sent = 0
        try:
            while sent < 200 << 20:
                sent += send(b"x" * 32_000)
        except (EOFError, OSError, paramiko.SSHException):
            pass
        assert isinstance(ended_with(client), bounded.TooMuchError)
        assert len(channel.in_buffer) + len(channel.in_stderr_buffer) <= limits.SSH_WINDOW.most


def test_a_server_that_respects_the_window_is_not_cut_off() -> None:
    with connected() as (client, server):
        channel = client.open_session(timeout=20)
        theirs = server.accept(20)
        assert theirs is not None
        total = 12 << 20
        sender = threading.Thread(target=theirs.sendall, args=(b"y" * total,), daemon=True)
        sender.start()
        time.sleep(0.5)  # it has filled the window
        got = 0
        while got < total:
            got += len(channel.recv(64 << 10))
        sender.join(20)
        assert client.is_active()


def test_the_window_of_a_channel_is_the_limit() -> None:
    assert limits.SSH_WINDOW.most >= DEFAULT_WINDOW_SIZE


@pytest.mark.parametrize("size", [limits.SSH_PACKET.most + 12, 2**31 + 4, 2**32 - 4])
def test_an_endless_packet_is_refused_before_it_is_read(size: int) -> None:
    here, there = tcp_pair()
    with here, there:
        packetizer = bounded.BoundedPacketizer(HeardSocket(here))  # type: ignore[arg-type]
        there.sendall(size.to_bytes(4, "big") + b"\0" * 4)
        with pytest.raises(bounded.TooMuchError):
            packetizer.read_message()


def test_an_endless_line_before_the_version_is_refused() -> None:
    here, there = tcp_pair()
    with here, there:
        packetizer = bounded.BoundedPacketizer(HeardSocket(here))  # type: ignore[arg-type]
        there.sendall(b"hello\r\n" * 100 + b"x" * (limits.SSH_LINE.most + 200))
        assert [packetizer.readline(5) for _ in range(100)] == ["hello"] * 100
        with pytest.raises(bounded.TooMuchError):
            packetizer.readline(5)


@pytest.mark.parametrize("count", [(limits.SSH_EXTENSIONS.most + 1).to_bytes(4, "big"), b"\xff\xff\xff\xff", b"\x01"])
def test_a_server_that_names_endless_extensions_is_cut_off(count: bytes) -> None:
    with connected() as (client, server):
        message = paramiko.Message()
        message.add_byte(b"\x07")
        message.add_bytes(count)
        server._send_message(message)  # type: ignore[attr-defined]
        assert isinstance(ended_with(client), bounded.TooMuchError)


def test_the_extensions_that_a_server_names_are_known() -> None:
    with connected() as (client, server):
        message = paramiko.Message()
        message.add_byte(b"\x07")
        message.add_int(1)
        message.add_string("server-sig-algs")
        message.add_string("ssh-ed25519")
        server._send_message(message)  # type: ignore[attr-defined]
        client.global_request("keepalive@openssh.com", wait=True)  # the earlier messages are read by then
        assert vars(client)["server_extensions"] == {"server-sig-algs": b"ssh-ed25519"}
        assert client.is_active()


@pytest.mark.parametrize(
    "payload",
    [b"\x01\0\0\0\x02\0\0\0\x02\xff\xff", b"\xff", b"\x50\0\0\0\x01\xff"],
    ids=["parting words that are not UTF-8", "an unknown packet", "a request that is not UTF-8"],
)
def test_invalid_messages_of_a_server_raise_an_error_of_ssh(payload: bytes) -> None:
    with connected() as (client, server):
        server.packetizer.send_message(paramiko.Message(payload))
        assert isinstance(ended_with(client), paramiko.SSHException)


def ended_with(client: Transport) -> Exception | None:
    """Wait for the connection's end; return its reason."""
    until = time.monotonic() + 20
    while client.is_active() and time.monotonic() < until:
        time.sleep(0.02)
    assert not client.is_active()
    return client.get_exception()
