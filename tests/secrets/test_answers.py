"""Answers of a hostile API: the key never comes through, and the proxy reads no more than the limits."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import pytest
from msgspec.structs import force_setattr

from pccpipe import limits
from pccpipe.secrets.proxy.proxy import Proxy
from tests.secrets.test_proxy import ASK, KEY, Client
from tests.stall import measured

Api = Callable[[Iterable[bytes]], Client]


@pytest.fixture
def api() -> Iterator[Api]:
    """An API that answers each call with the given bytes, and closes; it stops if the proxy stops reading."""
    with contextlib.ExitStack() as stack:

        def serve(answer: Iterable[bytes]) -> Client:
            server = stack.enter_context(contextlib.closing(socket.create_server(("127.0.0.1", 0))))
            threading.Thread(target=_serve, args=(server, answer), daemon=True).start()
            return Client(Proxy(), f"http://127.0.0.1:{server.getsockname()[1]}/v1")

        yield serve


def _serve(server: socket.socket, answer: Iterable[bytes]) -> None:
    with contextlib.suppress(OSError):
        connected, _ = server.accept()
        with connected:
            _request(connected)
            for piece in answer:
                connected.sendall(piece)
            connected.shutdown(socket.SHUT_WR)
            connected.settimeout(5)
            while connected.recv(1024):
                pass


def _request(connected: socket.socket) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        head += connected.recv(65536)
    head, _, body = head.partition(b"\r\n\r\n")
    size = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    while len(body) < size:
        body += connected.recv(65536)


def raw(client: Client) -> bytes:
    """Return all that an agent gets for a call, until the end of the connection or the answer."""
    with client.connect() as connected:
        body = b'{"model": "m", "input": "hello", "stream": true}'
        head = f"POST /v1/responses HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.tokens['KEY']}\r\n"
        connected.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        connected.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connected.recv(65536), b""))


@pytest.mark.parametrize(
    "answer",
    [
        f'HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer error="no {KEY}"\r\nContent-Length: 2\r\n\r\nno',
        f"HTTP/1.1 401 Wrong key {KEY}\r\nContent-Length: 2\r\n\r\nno",
        f"HTTP/1.1 200 OK\r\n{KEY}: a\r\nContent-Length: 2\r\n\r\nok",
        f"HTTP/1.1 200 OK\r\nX-Long: {'a' * 5000}{KEY}{'b' * 5000}\r\nContent-Length: 2\r\n\r\nok",
        f"HTTP/1.1 302 Found\r\nLocation: https://elsewhere.example/?key={KEY}\r\nContent-Length: 0\r\n\r\n",
        f"HTTP/1.1 302 Found\r\nLocation: {'a' * 190}{KEY}\r\nContent-Length: 0\r\n\r\n",
        f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Trailer: {KEY}\r\n\r\n",
        f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;was={KEY}\r\nok\r\n0\r\n\r\n",
        f"HTTP/1.1 100 {KEY}\r\nX: {KEY}\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        f"HTTP/1.1 103 {KEY}\r\nX: {KEY}\r\n\r\n",
        f"{KEY} is the key\r\n\r\n",
        f"HTTP/1.1 {KEY} OK\r\n\r\n",
        f"HTTP/2{KEY} 200 OK\r\n\r\n",
    ],
)
def test_no_part_of_an_answer_contains_the_key(api: Api, answer: str) -> None:
    got = raw(api([answer.encode()]))
    assert got.startswith(b"HTTP/1.1 ")
    assert KEY.encode() not in got
    assert KEY[:10].encode() not in got


def test_a_key_that_is_an_invalid_header_is_not_quoted_to_the_agent(api: Api) -> None:
    client = api([])
    (named,) = client.grant.apis
    force_setattr(named, "key", f"{KEY}\n")
    got = raw(client)
    assert b"502" in got.split(b"\r\n")[0]
    assert KEY.encode() not in got


FLOOD = b"a" * 1024


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\nX: " + FLOOD + b"\r\n\r\n"),
        (b"HTTP/1.1 200 ", FLOOD),
        (b"HTTP/1.1 200 OK\r\nX: ", FLOOD),
        (b"HTTP/1.1 200 OK\r\n", b"X: " + FLOOD + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"X: a\r\n"),
    ],
)
def test_an_endless_head_is_an_error_soon(api: Api, head: bytes, piece: bytes) -> None:
    client = api(itertools.chain([head], itertools.repeat(piece)))
    began = time.monotonic()
    status, code, message = client.error("POST", "/v1/responses", ASK)
    assert (status, code) == (502, "pccpipe_upstream")
    assert "gave no answer" in message
    assert len(message) < 300
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("head", "piece"), [(b"2;x=", FLOOD), (b"2\r\nok\r\n", FLOOD), (b"2\r\nok\r\n0\r\n", b"X: " + FLOOD + b"\r\n")]
)
def test_endless_lines_between_pieces_of_a_body_cut_it(api: Api, head: bytes, piece: bytes) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    client = api(itertools.chain([chunked + head], itertools.repeat(piece)))
    began = time.monotonic()
    got = raw(client)
    assert got.startswith(b"HTTP/1.1 200")
    assert not got.endswith(b"\r\n0\r\n\r\n")
    assert time.monotonic() - began < 5


def test_a_body_in_many_small_chunks_arrives_complete(api: Api) -> None:
    count = limits.ANSWER_HEAD.most // 8
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    client = api([chunked, b"2;of=api;n=1\r\nok\r\n" * count, b"0\r\n\r\n"])
    assert client.ask("POST", "/v1/responses", ASK) == (200, b"ok" * count)


def test_an_interim_answer_is_left_out(api: Api) -> None:
    client = api([b"HTTP/1.1 100 Continue\r\n\r\n" * 3, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"])
    assert client.ask("POST", "/v1/responses", ASK) == (200, b"ok")


@pytest.mark.parametrize(
    "line", [b"Bad Name: x", b"X(y): z", b"X: a\x07b", b"X: a\rSet-Cookie: b=c", b"X: a\r\n b", b": x", b"X:  a \t"]
)
def test_a_header_that_is_not_http_does_not_end_the_answer(api: Api, line: bytes) -> None:
    got = raw(api([b"HTTP/1.1 200 O\x1bK\rX: y\r\nFine: yes\r\n" + line + b"\r\nContent-Length: 2\r\n\r\nok"]))
    head, _, _ = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 O?K?X: y\r\nFine: yes")
    assert b"ok" in got
    assert b"ookie" not in got
    assert not set(head.replace(b"\r\n", b"")) & {0x07, 0x0A, 0x0D, 0x1B}


def test_an_endless_event_takes_linear_work() -> None:
    setup = "from pccpipe.secrets.proxy.usage import TokenCounter"
    work = "counter = TokenCounter(is_stream=True)\nfor _ in range(1 << 21): counter.feed(b'aaaaaaaaaaaaaaaa')"
    began = time.monotonic()
    longest, memory, said = measured(setup, work)
    assert not said
    assert longest <= limits.PAUSE
    assert memory <= 2 * limits.MARGIN
    assert time.monotonic() - began < 20
