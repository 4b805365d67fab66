"""Calls the model's API with the real key, passes on the answer piece by piece, and counts its tokens."""

from __future__ import annotations

import contextlib
import functools
import http.client
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import urlsplit

from msgspec import Struct

from pccpipe import limits
from pccpipe.errors import PccpipeError
from pccpipe.secrets.mask import Masker
from pccpipe.secrets.proxy import answers
from pccpipe.secrets.proxy.grant import Api, Grant
from pccpipe.secrets.proxy.meter import LONGEST_ANSWER, Reservation
from pccpipe.secrets.proxy.request import Request, Rules
from pccpipe.secrets.proxy.usage import TokenCounter, Tokens

CONNECT_LIMIT = 15.0
ANSWER_LIMIT = 600.0
"""Seconds of silence after which the proxy drops an answer: a model may think for minutes first."""
ERROR_LIMIT = 30.0
"""The same for the body of an error."""
DRAIN_LIMIT = 60.0
"""Seconds for which the proxy reads on after the client left."""
PIECE = 64 * 1024

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t -~\x80-\xff]*")
_UNPRINTABLE = re.compile(rb"[^\t -~]")
OF_ONE_HOP = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"}
    | {"transfer-encoding", "upgrade", "content-length", "expect", "host"}
)
_UP = frozenset(
    {"accept", "accept-language", "content-type", "user-agent", "anthropic-version", "anthropic-beta", "openai-beta"}
    | {"originator", "version", "session_id", "session-id", "conversation_id", "thread-id", "x-client-request-id"}
    | {"x-app", "x-goog-api-client", "x-openai-subagent", "idempotency-key", "traceparent"}
)
_UP_BEGIN = ("x-stainless-", "x-codex-")
"""The headers of an agent that the proxy forwards; never a credential, or one that chooses the payer."""
_QUERY = frozenset({"beta", "client_version", "limit", "after", "order", "pageSize", "pageToken"})
_FORMS = frozenset({"alt=sse", "alt=json"})
"""The parameters of a query that the proxy forwards; it counts the tokens of no other form of an answer."""
_HOSTED_BETAS = frozenset(
    {"advisor-tool", "code-execution", "files-api", "mcp-client", "skills", "web-fetch", "web-search"}
)
"""The features of `anthropic-beta` for which the provider fetches, stores or runs something."""
_DEAR_BETAS = frozenset({"context-1m", "fast-mode"})
"""Those with a price of their own."""
_NEVER_DOWN = (
    OF_ONE_HOP
    | {"set-cookie", "location", "alt-svc", "strict-transport-security"}
    | {"openai-organization", "openai-project", "anthropic-organization-id"}
)


class UnreachableError(PccpipeError):
    """The other side gave no answer."""


class SilentError(UnreachableError):
    """The other side has the request, and did not answer in time: nobody knows what it did."""


class CutError(ConnectionResetError):
    """The API, or the network, cut an answer."""


class ClientRequest(Struct, frozen=True):
    """A request as the client sent it. Names of headers are in lower case."""

    method: str
    path: str
    query: str
    headers: Sequence[tuple[str, str]]
    body: Sequence[bytes] = ()


class UpstreamAnswer(Struct, frozen=True):
    """An answer; its iterator yields the pieces as they arrive."""

    status: int
    reason: bytes
    headers: list[tuple[str, str]]
    pieces: Iterator[bytes]


class UpstreamCall:
    """One call, as a context manager; leaving it settles the tokens. The grant's end cuts it.

    Args:
        request: the body after the check; its tokens are reserved.
    """

    def __init__(
        self, api: Api, grant: Grant, client_request: ClientRequest, request: Request, reserved: Reservation
    ) -> None:
        self._api = api
        self._grant = grant
        self._client_request = client_request
        self._request = request
        self._reserved = reserved
        self._counter: TokenCounter | None = None
        self._pieces_left: Iterator[bytes] = iter(())
        self._is_settled = False
        self._stack = contextlib.ExitStack()

    def answer(self) -> UpstreamAnswer:
        """Send the request and wait for the head of the answer. Raises UnreachableError."""
        url = urlsplit(self._api.base)
        host, is_safe = url.hostname or "", url.scheme == "https"
        connection = _connect(host, url.port or (443 if is_safe else 80), encrypted=is_safe)
        self._stack.callback(connection.close)
        self._stack.enter_context(self._grant.ending(functools.partial(shut, connection.sock)))
        query = self._client_request.query
        path = f"{self._api.url_of(self._client_request.path)}{'?' if query else ''}{query}"
        body = self._request.body(self._output)
        connected = connection.sock
        try:
            response = ask(connection, self._client_request.method, path, self._headers(), body)
        except SilentError:
            # The model may have written a long answer by then: an agent could have such answers for nothing.
            self._settle(lambda: Tokens(estimated=max(self._reserved.tokens, self._request.likely_input)))
            raise
        self._stack.callback(response.close)
        if response.status >= 400:
            with contextlib.suppress(OSError):  # closed already, for an answer without a body
                connected.settimeout(ERROR_LIMIT)
        # Some APIs quote the key in their errors.
        masker = Masker([self._api.key])
        if 300 <= response.status < 400:
            where = masker.text(response.headers.get("location", "another place"))[: limits.REDIRECT.most]
            words = f"{self._api.base} answered with a redirect ({response.status}) to {where}, which is not followed"
            raise UnreachableError(f"{words}: set the secret's `upstream:` to the API's own address")
        kind = response.headers.get_content_type()
        if response.status == 200 and self._request.takes_tokens:
            self._counter = TokenCounter(is_stream=kind == "text/event-stream")
        self._pieces_left = self._counted(response)
        headers = [(masker.text(name), masker.text(value)) for name, value in passed_down(response)]
        masked_reason = masker.data(reason(response))
        return UpstreamAnswer(response.status, masked_reason, headers, self._masked(masker))

    @property
    def _output(self) -> int | None:
        """The limit of the answer's tokens to write; None leaves it as it is. APIs refuse one above their model's."""
        output = self._reserved.output
        if not self._request.takes_tokens or output is None or self._request.output or not self._request.shape:
            return output if self._request.takes_tokens else None
        return None if output >= LONGEST_ANSWER else min(output, self._request.shape.longest)

    def _headers(self) -> list[tuple[str, str]]:
        known = [
            (name, _betas(value, self._api.rules) if name == "anthropic-beta" else value)
            for name, value in self._client_request.headers
            if name in _UP or name.startswith(_UP_BEGIN)
        ]
        return [*filter(all, known), self._api.key_header, ("accept-encoding", "identity")]

    def _counted(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        for piece in pieces(response):
            if self._counter:
                self._counter.feed(piece)
            yield piece
        self._settle(self._by_size)

    def _masked(self, masker: Masker) -> Iterator[bytes]:
        mask = masker.stream()
        for piece in self._pieces_left:
            if shown := mask.feed(piece):
                yield shown
        if rest := mask.finish():
            yield rest

    def __enter__(self) -> UpstreamCall:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        try:
            if self._is_settled:
                return
            if self._grant.is_ending:
                self._settle(self._all)
            elif self._counter is None:
                self._settle(Tokens)
            elif isinstance(error, CutError):
                self._settle(self._by_size)
            else:
                self._drain()
        finally:
            self._stack.close()

    def _drain(self) -> None:
        """Read on after the client left, to count the answer: hanging up does not save tokens."""
        until = time.monotonic() + DRAIN_LIMIT
        try:
            for _ in self._pieces_left:
                if time.monotonic() > until:
                    break
        except OSError:
            self._settle(self._all if self._grant.is_ending else self._by_size)
        self._settle(self._all)

    def _by_size(self) -> Tokens:
        return self._counter.tokens(self._request.likely_input) if self._counter else Tokens()

    def _all(self) -> Tokens:
        """Return the reserved tokens, for a call whose tokens nobody will learn."""
        known = self._by_size()
        return known if known.total >= self._reserved.tokens else Tokens(estimated=self._reserved.tokens)

    def _settle(self, tokens: Callable[[], Tokens]) -> None:
        if not self._is_settled:
            self._is_settled = True
            self._grant.settle(self._reserved, tokens())


def query_up(query: str) -> str:
    """Return the part of a query that the proxy forwards."""
    return "&".join(part for part in query.split("&") if part in _FORMS or part.partition("=")[0] in _QUERY)


def _betas(value: str, rules: Rules) -> str:
    """Return the features of `anthropic-beta` that a secret allows."""
    named = {name.replace("_", "-") for name in (*rules.hosted_tools, *rules.service_tiers)}
    refused = tuple((_HOSTED_BETAS | _DEAR_BETAS) - named)
    return ",".join(each for each in map(str.strip, value.split(",")) if not each.lower().startswith(refused))


def over(connected: socket.socket, host: str, port: int) -> http.client.HTTPConnection:
    """Return HTTP over an open connection."""
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.settimeout(ANSWER_LIMIT)
    connection = http.client.HTTPConnection(host, port)
    connection.response_class = answers.BoundedResponse
    connection.default_port = 443 if isinstance(connected, ssl.SSLSocket) else 80
    connection.sock = connected
    return connection


def _connect(host: str, port: int, *, encrypted: bool) -> http.client.HTTPConnection:
    """Connect to a host. Raises UnreachableError."""
    where = f"{host}:{port}"
    try:
        connected = socket.create_connection((host, port), timeout=CONNECT_LIMIT)
        if encrypted:
            connected = tls().wrap_socket(connected, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        raise UnreachableError(f"{where}: invalid certificate: {error.verify_message}") from error
    except TimeoutError as error:
        raise UnreachableError(f"connect to {where}: nothing answered in {CONNECT_LIMIT:g} s") from error
    except OSError as error:
        raise UnreachableError(f"connect to {where}: {error.strerror or error}") from error
    return over(connected, host, port)


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    headers: Sequence[tuple[str, str]],
    body: Sequence[bytes],
) -> http.client.HTTPResponse:
    """Send a request and wait for the head of its answer. Raises UnreachableError."""
    where = f"{connection.host}:{connection.port}"
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        connection.putheader("connection", "close")
        if body or method not in {"GET", "HEAD"}:
            connection.putheader("content-length", str(sum(map(len, body))))
        connection.endheaders(body or None)
        response = connection.getresponse()
    except TimeoutError as error:
        raise SilentError(f"{where} gave no answer in {ANSWER_LIMIT:g} s") from error
    except (http.client.RemoteDisconnected, answers.TooLongError) as error:
        raise UnreachableError(f"{where} gave no answer: {error}") from error
    except (ValueError, http.client.HTTPException) as error:
        # Does not quote the error: it may contain a header with the key.
        raise UnreachableError(f"{where} gave no answer in HTTP ({type(error).__name__})") from error
    except OSError as error:
        raise UnreachableError(f"{where} gave no answer: {str(error) or type(error).__name__}") from error
    if response.status < 200:
        response.close()
        raise UnreachableError(f"{where} gave no answer, only an interim one ({response.status})")
    return response


def pieces(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield the body as it arrives. Raises CutError if it is cut."""
    try:
        while piece := response.read1(PIECE):
            yield piece
    except http.client.HTTPException as error:
        raise CutError("the answer was cut") from error
    except OSError as error:
        raise CutError(f"the answer was cut: {error}") from error
    if response.length:
        raise CutError("the answer was cut")


def passed_down(response: http.client.HTTPResponse, without: frozenset[str] = _NEVER_DOWN) -> list[tuple[str, str]]:
    """Return the headers of an answer for the client, without its length, which masking may change."""
    named = {name.strip().lower() for name in response.headers.get("connection", "").split(",")}
    return [
        (name, value.strip(" \t"))
        for name, value in response.headers.items()
        # An invalid header could end the answer, or begin another one.
        if name.lower() not in without | named and _NAME.fullmatch(name) and _VALUE.fullmatch(value)
    ]


def reason(response: http.client.HTTPResponse) -> bytes:
    return _UNPRINTABLE.sub(b"?", response.reason.encode("ascii", "replace"))


def shut(connected: socket.socket) -> None:
    """Shut a socket down, which wakes every thread that waits for it."""
    with contextlib.suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


@functools.cache
def tls() -> ssl.SSLContext:
    """Return the TLS settings: the certificate must come from one of the machine's authorities."""
    return ssl.create_default_context()
