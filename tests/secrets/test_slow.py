"""Slow requests, and floods of connections: they hold nothing for long."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from pccpipe import limits
from pccpipe.secrets.proxy import exchange
from pccpipe.secrets.proxy.slots import WAKE
from tests.secrets.test_proxy import Client

DROP = 0.1


def ends_within(connected: socket.socket, drops: bytes, seconds: float) -> bytes:
    """Send a byte at a time until the proxy ends it; return its answer."""
    connected.settimeout(DROP)
    until = time.monotonic() + seconds
    answer = b""
    sent = 0
    while time.monotonic() < until:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connected.sendall(drops[sent : sent + 1])
            sent += 1
        try:
            more = connected.recv(4096)
        except TimeoutError:
            continue
        except ConnectionResetError:
            return answer
        if not more:
            return answer
        answer += more
    raise AssertionError("it is still open")


def head(client: Client, *lines: str) -> bytes:
    request = ["POST /v1/responses HTTP/1.1", "Host: proxy", f"Authorization: Bearer {client.tokens['KEY']}", *lines]
    return "\r\n".join(request).encode()


def test_a_slow_second_head_is_cut(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "HEAD_SECONDS", 1.0)
    connected = client.connect()
    connected.sendall(head(client, "Content-Length: 2", "", "{}"))
    connected.settimeout(10)
    assert connected.recv(65536).startswith(b"HTTP/1.1 ")
    # A connection without a byte of the next request may stay.
    time.sleep(1.5)
    began = time.monotonic()
    ends_within(connected, b"GET /v1/models HTTP/1.1\r\n" + b"X: y\r\n" * 100, 5)
    assert time.monotonic() - began > 0.9


@pytest.mark.parametrize(
    ("frames", "drops"),
    [
        ("Content-Length: 1000", b"{" * 1000),
        ("Transfer-Encoding: chunked", b"1;" + b"x" * 1000),
        ("Transfer-Encoding: chunked", b"0\r\n" + b"X: y\r\n" * 100),
    ],
)
def test_a_slow_body_is_refused(client: Client, monkeypatch: pytest.MonkeyPatch, frames: str, drops: bytes) -> None:
    monkeypatch.setattr(exchange, "BODY_SECONDS", 1.0)
    connected = client.connect()
    connected.sendall(head(client, frames, "", ""))
    assert b"pccpipe_slow" in ends_within(connected, drops, 10)


def test_a_flood_of_connections_without_a_token_blocks_no_client(client: Client) -> None:
    before = threading.active_count()
    flood = [client.connect() for _ in range(8 * limits.UNKNOWN_CONNECTIONS.most)]
    try:
        until = time.monotonic() + 10
        # A connection at the same moment may be refused; a retry some tenths of a second later succeeds.
        for wait in (2 * WAKE, 4 * WAKE, 8 * WAKE):
            with contextlib.suppress(ConnectionError):
                assert client.ask("POST", "/v1/responses", {"input": "x"})[0] == 200
                break
            time.sleep(wait)
        else:
            raise AssertionError("it was turned away three times")
        while (more := threading.active_count() - before) > limits.UNKNOWN_CONNECTIONS.most + 4:
            assert time.monotonic() < until, more
            time.sleep(0.05)
    finally:
        for each in flood:
            each.close()
