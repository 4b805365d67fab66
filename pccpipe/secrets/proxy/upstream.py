"""A call of the model's API with the real key, its answer piece by piece, and its tokens counted."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import socket
import ssl
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from msgspec import Struct

from pccpipe.errors import PccpipeError
from pccpipe.secrets.mask import Masker
from pccpipe.secrets.proxy.grant import Api, Grant
from pccpipe.secrets.proxy.usage import Counter, Tokens

CONNECT_LIMIT = 15.0
ANSWER_LIMIT = 600.0
"""Seconds of silence after which an answer is given up: a model may think for minutes before it says anything."""
PIECE = 64 * 1024

OF_ONE_HOP = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"}
    | {"transfer-encoding", "upgrade", "content-length", "expect", "host"}
)
_NEVER_UP = OF_ONE_HOP | {"authorization", "x-api-key", "api-key", "cookie", "accept-encoding", "forwarded", "via"}
_NEVER_DOWN = OF_ONE_HOP | {"set-cookie", "location", "alt-svc", "strict-transport-security"}


class UnreachableError(PccpipeError):
    """No answer could be had."""


class UncountableError(PccpipeError):
    """A call of which nobody could say how many tokens it takes."""


class Asked(Struct, frozen=True):
    """A request as it came. Names of headers are in lower case."""

    method: str
    path: str
    query: str
    headers: Sequence[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str:
        return next((value for known, value in self.headers if known == name), "")


class Answer(Struct, frozen=True):
    """An answer whose pieces are given as they come."""

    status: int
    reason: bytes
    headers: list[tuple[str, str]]
    pieces: Iterator[bytes]


class Call:
    """One call, as a context; leaving it counts what the call took. The grant's end cuts it.

    Raises UncountableError.
    """

    def __init__(self, api: Api, grant: Grant, asked: Asked) -> None:
        self._api = api
        self._grant = grant
        self._asked = asked
        self._body = _readable(asked)
        self._counter: Counter | None = None
        self._is_counted = False
        self._stack = contextlib.ExitStack()

    def answer(self) -> Answer:
        """Ask, and wait for the answer's head. Raises UnreachableError."""
        url = urlsplit(self._api.base)
        host, is_safe = url.hostname or "", url.scheme == "https"
        connection = _connect(host, url.port or (443 if is_safe else 80), encrypted=is_safe)
        self._stack.callback(connection.close)
        self._stack.enter_context(self._grant.ending(functools.partial(shut, connection.sock)))
        path = f"{url.path}{self._asked.path}{'?' if self._asked.query else ''}{self._asked.query}"
        headers = [(name, value) for name, value in self._asked.headers if name not in _NEVER_UP]
        headers += [("authorization", f"Bearer {self._api.key}"), ("accept-encoding", "identity")]
        response = ask(connection, self._asked.method, path, headers, self._body)
        self._stack.callback(response.close)
        if 300 <= response.status < 400:
            where = response.headers.get("location", "another place")
            words = f"{self._api.base} answered with a redirect ({response.status}) to {where}, which is not followed"
            raise UnreachableError(f"{words}: the secret's `upstream:` is to be the API's own address")
        kind = response.headers.get_content_type()
        if response.status == 200 and self._asked.method == "POST":
            self._counter = Counter(is_stream=kind == "text/event-stream")
        return Answer(response.status, reason(response), passed_down(response), self._pieces(response))

    def _pieces(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        # Some APIs say in their errors which key they were given.
        mask = Masker([self._api.key]).stream()
        for piece in pieces(response):
            if self._counter:
                self._counter.feed(piece)
            if shown := mask.feed(piece):
                yield shown
        if rest := mask.finish():
            yield rest
        # Before its end is told: by then the step may be over.
        self._count()

    def __enter__(self) -> Call:
        return self

    def __exit__(self, *_: object) -> None:
        self._count()
        self._stack.close()

    def _count(self) -> None:
        if not self._is_counted:
            self._is_counted = True
            self._grant.count(self._counter.tokens(len(self._body)) if self._counter else Tokens())


def over(connected: socket.socket, host: str, port: int) -> http.client.HTTPConnection:
    """HTTP over a connection that is there already."""
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.settimeout(ANSWER_LIMIT)
    connection = http.client.HTTPConnection(host, port)
    connection.default_port = 443 if isinstance(connected, ssl.SSLSocket) else 80
    connection.sock = connected
    return connection


def _connect(host: str, port: int, *, encrypted: bool) -> http.client.HTTPConnection:
    """Raises UnreachableError."""
    where = f"{host}:{port}"
    try:
        connected = socket.create_connection((host, port), timeout=CONNECT_LIMIT)
        if encrypted:
            connected = tls().wrap_socket(connected, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        raise UnreachableError(f"{where} is not who it says: {error.verify_message}") from error
    except TimeoutError as error:
        raise UnreachableError(f"connect to {where}: nothing answered in {CONNECT_LIMIT:g} s") from error
    except OSError as error:
        raise UnreachableError(f"connect to {where}: {error.strerror or error}") from error
    return over(connected, host, port)


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes
) -> http.client.HTTPResponse:
    """Send a request and wait for the head of its answer. Raises UnreachableError."""
    where = f"{connection.host}:{connection.port}"
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        connection.putheader("connection", "close")
        if body or method not in {"GET", "HEAD"}:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders(body)
        return connection.getresponse()
    except TimeoutError as error:
        raise UnreachableError(f"{where} gave no answer in {ANSWER_LIMIT:g} s") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise UnreachableError(f"{where} gave no answer: {str(error) or type(error).__name__}") from error


def pieces(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The body as it comes; ConnectionResetError if it is cut."""
    try:
        while piece := response.read1(PIECE):
            yield piece
    except http.client.HTTPException as error:
        raise ConnectionResetError("the answer was cut") from error
    if response.length:
        raise ConnectionResetError("the answer was cut")


def passed_down(response: http.client.HTTPResponse, without: frozenset[str] = _NEVER_DOWN) -> list[tuple[str, str]]:
    """The headers of an answer that are for the one who asked. Its length is not: it may change on the way."""
    named = {name.strip().lower() for name in response.headers.get("connection", "").split(",")}
    return [
        (name, value)
        for name, value in response.headers.items()
        if name.lower() not in without | named and not set(value) & {"\r", "\n", "\0"}
    ]


def reason(response: http.client.HTTPResponse) -> bytes:
    return response.reason.encode("ascii", "replace")


def shut(connected: socket.socket) -> None:
    """Wake whoever waits for something on it: there is nothing to come."""
    with contextlib.suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


@functools.cache
def tls() -> ssl.SSLContext:
    """What is asked of the other side of https: a certificate that the machine's authorities vouch for."""
    return ssl.create_default_context()


def _readable(asked: Asked) -> bytes:
    """The body of a call that costs tokens, written anew: the API gets what was read here and nothing else.

    Raises UncountableError for one whose tokens its answer would not say.
    """
    if asked.method != "POST" or asked.path not in {"/responses", "/chat/completions"}:
        return asked.body
    if asked.header("content-encoding") not in {"", "identity"}:
        raise UncountableError("pccpipe counts tokens, so it reads requests: send this one without a Content-Encoding")
    try:
        data = json.loads(asked.body)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise UncountableError("the request is no JSON object")
    if data.get("background"):
        raise UncountableError("pccpipe counts tokens, and an answer in the background does not say what it took")
    if asked.path == "/chat/completions" and data.get("stream"):
        # A streamed chat says it only if it is asked for that.
        options = data.get("stream_options")
        data["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    return json.dumps(data).encode()
