"""Serves one connection to the proxy by HTTP/1.1: requests to the model's API, or out of the container."""

from __future__ import annotations

import base64
import contextlib
import itertools
import time
from collections.abc import Callable, Iterable
from typing import TypeAlias
from urllib.parse import parse_qsl, urlsplit

import h11
from msgspec.structs import replace

from pccpipe import limits
from pccpipe.machine.base import ByteStream
from pccpipe.model_api import ModelApi
from pccpipe.secrets.proxy import egress, upstream
from pccpipe.secrets.proxy.grant import PREFIX, Api, EndedTokenError, Grant
from pccpipe.secrets.proxy.meter import BudgetExceededError
from pccpipe.secrets.proxy.provider_limits import (
    GLANCE,
    HOLD,
    NOTABLE,
    STATUSES,
    asking_again,
    beginning,
    hold,
    limit_of,
    trouble_of,
)
from pccpipe.secrets.proxy.refusal import HttpRefusal, asked_api
from pccpipe.secrets.proxy.request import RefusedRequestError, Request, read_request
from pccpipe.secrets.proxy.slots import WAKE, ConnectionSlot
from pccpipe.values import cut

Holder: TypeAlias = "tuple[Grant, Api | None]"
"""The grant of a token, and the API that it is for; None for a token of an egress."""

HEAD_SECONDS = 30.0
"""Seconds in which the head of a request must arrive, from its first byte on."""
BODY_SECONDS = 120.0
"""Seconds in which the whole body of a request must arrive."""
IDLE_LIMIT = 300.0
"""Seconds to wait for the next request."""
SEND_LIMIT = 120.0
"""Seconds in which the client must accept a piece of an answer."""
LINGER_LIMIT = 2.0
"""Seconds for which the proxy reads and discards the rest of a refused request."""
PIECE = 64 * 1024
KEYS = 8
"""The places of a token that the proxy looks at in one request."""
_KEY_HEADERS = frozenset({"authorization", "x-api-key", "api-key", "x-goog-api-key"})
TOKEN_SECONDS = 10.0
"""Seconds in which a new connection must show a token."""


class Exchange:
    """Serves one connection, in the caller's thread.

    Args:
        holder_of: finds the holder of a token. Raises EndedTokenError.
    """

    def __init__(self, stream: ByteStream, slot: ConnectionSlot, holder_of: Callable[[str], Holder | None]) -> None:
        self._stream = stream
        self._slot = slot
        self._holder_of = holder_of
        self._api = ModelApi.OPENAI
        """The API whose errors the client of the current request understands."""
        self._token_due = time.monotonic() + TOKEN_SECONDS
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.REQUEST_HEAD.most)

    def run(self) -> None:
        """Serve until either side ends the connection. Raises nothing for the client's behaviour."""
        with contextlib.suppress(OSError, h11.LocalProtocolError):  # the client left during an answer
            try:
                while self._serve_one():
                    pass
            except h11.RemoteProtocolError as error:
                if self._http.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                    self._answer(HttpRefusal(error.error_status_hint, "bad_request", f"invalid HTTP: {error}"))
                    self._linger()

    def _serve_one(self) -> bool:
        """Answer one request; return whether another may follow."""
        request = self._next_request()
        if not isinstance(request, h11.Request):
            return False
        try:
            self._route(request)
        except HttpRefusal as refused:
            self._answer(refused)
            if refused.fatal:
                self._linger()
                return False
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    def _route(self, request: h11.Request) -> None:
        method, target = request.method.decode("ascii"), request.target.decode("ascii")
        self._api = asked_api(target)
        if method == "CONNECT":
            self._tunnel(self._egress_grant(request), target)
        elif target.startswith("http://"):
            self._fetch(request, self._egress_grant(request), method, target)
        elif method == "HEAD" and target.partition("?")[0].rstrip("/") in {"", PREFIX}:
            # Claude Code looks for the API in this way, without a token.
            self._next_of_body(time.monotonic() + BODY_SECONDS)
            self._send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            self._send(h11.EndOfMessage())
        else:
            self._call(request, method, target)

    def _call(self, request: h11.Request, method: str, target: str) -> None:
        """Forward a call to the model's API."""
        asked, _, query = target.partition("?")
        grant, api = self._caller(request, query)
        self._api = api.kind
        path = api.path_of(asked)
        if path is None or not api.allows(method, path):
            grant.warn(f"{method} {cut(asked, 200)} was refused: `allow:` of the secret {api.secret} does not have it")
            words = f"pccpipe does not forward {method} {cut(asked, 200)}; it forwards: {', '.join(api.calls)}"
            raise HttpRefusal(403, "pccpipe_not_allowed", words, fatal=True)
        headers = _plain(request.headers)
        if encoding := ",".join(value for name, value in headers if name == "content-encoding" and value != "identity"):
            unread = f"Content-Encoding {cut(encoding, 40)}"
            words = f"pccpipe must read requests to count tokens: send this one without {unread}"
            raise HttpRefusal(400, "pccpipe_uncountable", words, fatal=True)
        client_request = upstream.ClientRequest(method, path, upstream.query_up(query), headers)
        with contextlib.ExitStack() as stack:
            checked = self._read(client_request, api, self._body(stack, grant), grant)
            with grant.open_calls:
                until = time.monotonic() + HOLD
                while wait := self._answered(grant, api, client_request, checked, until):
                    # The call is over, so it reserves no tokens meanwhile.
                    self._hold(wait, grant)

    def _answered(
        self, grant: Grant, api: Api, request: upstream.ClientRequest, checked: Request, until: float
    ) -> float:
        """Call the model's API and pass on its answer; or return the seconds after which to call again.

        Some clients give up without an answer: by `until`, this one gets one, calls again, and waits on.
        """
        try:
            reserved = grant.reserve(checked, lambda: self._hold(GLANCE, grant))
        except BudgetExceededError as error:
            raise HttpRefusal(400, "budget_exceeded", str(error)) from error
        with upstream.UpstreamCall(api, grant, request, checked, reserved) as call:
            try:
                answer = call.answer()
            except upstream.UnreachableError as error:
                grant.answered(f"was unreachable: {error}")
                raise HttpRefusal(502, "pccpipe_upstream", str(error)) from error
            if not checked.takes_tokens:
                # Calls of the model have limits of their own: a list of models does not end one.
                if answer.status >= 400:
                    grant.answered(f"answered {answer.status}")
                self._pass_on(answer)
                return 0.0
            body = beginning(answer.pieces) if answer.status in STATUSES else b""
            answer = replace(answer, pieces=itertools.chain((body,), answer.pieces))
            grant.answered(trouble_of(answer.status, body))
            limit = limit_of(answer.status, answer.headers, body)
            if limit is None:
                self._pass_on(replace(answer, pieces=grant.provider_limits.watched(api.secret, answer.pieces)))
                return 0.0
            wait = grant.provider_limits.wait(api.secret, limit)
            if wait >= NOTABLE:
                grant.warn(f"the model's API {limit.words}: the proxy waits and makes the call again")
            if not wait:
                self._pass_on(answer)
                return 0.0
        left = until - time.monotonic()
        if wait > left:
            self._hold(left, grant)
            self._pass_on(replace(answer, headers=asking_again(answer.headers), pieces=iter((body,))))
            return 0.0
        return wait

    def _hold(self, seconds: float, grant: Grant) -> None:
        """Wait with the client's connection open. Raises ConnectionResetError if nobody wants the answer any more."""
        if received := hold(self._stream, seconds, lambda: grant.is_ending):
            self._http.receive_data(received)

    def _read(self, request: upstream.ClientRequest, api: Api, pieces: list[bytes], grant: Grant) -> Request:
        """Check a request; return it as the proxy sends it."""
        if request.method != "POST":
            return Request(pieces, takes_tokens=False)
        try:
            checked = read_request(request.path, pieces, api.rules)
        except RefusedRequestError as error:
            # Agents stop at a 400, and retry for minutes after anything else.
            status = 413 if error.code == "pccpipe_too_large" else 400
            if error.code == "pccpipe_not_allowed":
                grant.warn(f"a call of the model's API was refused: {error.message}")
            raise HttpRefusal(status, error.code, error.message) from error
        for name in dict.fromkeys(checked.removed_tools[:10]):
            words = f"the agent did not get the tool {name}, which the model's provider runs"
            grant.warn(
                f"{words}; fix: turn it off in the agent, or `hosted_tools: [{name}]` at the secret {api.secret}"
            )
        return checked

    def _fetch(self, request: h11.Request, grant: Grant, method: str, target: str) -> None:
        """Forward a request by plain HTTP to an allowed domain."""
        url = urlsplit(target)
        try:
            host, port = url.hostname or "", url.port or 80
        except ValueError:
            raise HttpRefusal(400, "bad_request", f"invalid URL: {cut(target, 200)}", fatal=True) from None
        if not egress.allows(grant.egress, host, port):
            raise self._refusal(grant, host, port)
        path = f"{url.path or '/'}{'?' if url.query else ''}{url.query}"
        try:
            with contextlib.ExitStack() as stack:
                client_request = upstream.ClientRequest(
                    method, path, "", _plain(request.headers), self._body(stack, grant)
                )
                fetch = stack.enter_context(egress.EgressFetch(grant, host, port, client_request))
                self._pass_on(fetch.answer())
        except egress.RefusedAddressError as error:
            grant.warn(str(error))
            raise HttpRefusal(403, "pccpipe_not_allowed", str(error)) from error
        except upstream.UnreachableError as error:
            raise HttpRefusal(502, "pccpipe_upstream", str(error)) from error

    def _tunnel(self, grant: Grant, target: str) -> None:
        host, port = egress.split(target)
        if not egress.allows(grant.egress, host, port):
            raise self._refusal(grant, host, port)
        if not isinstance(self._next_of_body(time.monotonic() + BODY_SECONDS), h11.EndOfMessage):
            raise HttpRefusal(400, "bad_request", "a CONNECT must not have a body", fatal=True)
        try:
            other = egress.connect(grant.egress, host, port)
        except egress.RefusedAddressError as error:
            grant.warn(str(error))
            raise HttpRefusal(403, "pccpipe_not_allowed", str(error), fatal=True) from error
        except upstream.UnreachableError as error:
            raise HttpRefusal(502, "pccpipe_upstream", str(error), fatal=True) from error
        with contextlib.closing(other), grant.ending(lambda: upstream.shut(other)):
            self._send(h11.Response(status_code=200, headers=[], reason=b"Connection established"))
            first, _ = self._http.trailing_data
            egress.pump(self._stream, other, first, grant, host, port)

    def _refusal(self, grant: Grant, host: str, port: int) -> HttpRefusal:
        where = f"{cut(host, 200)}:{port}"
        grant.warn(f"a connection to {where} was refused: it is not in the container's `egress:`")
        return HttpRefusal(403, "pccpipe_not_allowed", f"pccpipe does not allow connections to {where}", fatal=True)

    def _pass_on(self, answer: upstream.UpstreamAnswer) -> None:
        """Send an answer, piece by piece as it arrives."""
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
        self._send(h11.Response(status_code=answer.status, headers=headers, reason=answer.reason))
        for piece in answer.pieces:
            self._send(h11.Data(data=piece))
        self._send(h11.EndOfMessage())

    def _caller(self, request: h11.Request, query: str) -> tuple[Grant, Api]:
        """Find the grant in the headers and parameters in which agents send their key; some send it in two."""
        tokens = [value for name, value in _plain(request.headers) if name in _KEY_HEADERS]
        tokens += [value for name, value in parse_qsl(query) if name == "key"]
        refused = HttpRefusal(401, "invalid_api_key", "unknown token: a step's token expires with the step", fatal=True)
        for token in dict.fromkeys(tokens[:KEYS]):
            kind, _, bare = token.strip().partition(" ")
            try:
                held = self._holder_of(bare.strip() if kind.lower() == "bearer" else token.strip())
            except EndedTokenError as error:
                # Agents retry a 401 for minutes, and stop at a 400.
                refused = HttpRefusal(400, "invalid_api_key", str(error), fatal=True)
                continue
            if held and held[1]:
                self._take_slot(held[0])
                return held[0], held[1]
        raise refused

    def _egress_grant(self, request: h11.Request) -> Grant:
        """Return the grant of a client that wants to leave a container."""
        kind, _, given = dict(_plain(request.headers)).get("proxy-authorization", "").partition(" ")
        token = ""
        if kind.lower() == "basic":
            with contextlib.suppress(ValueError):  # not base64, not ASCII, or not UTF-8
                token = base64.b64decode(given.strip(), validate=True).decode().partition(":")[2]
        try:
            held = self._holder_of(token)
        except EndedTokenError:
            held = None
        if held is None or held[1] is not None:
            words = "unknown token: use HTTPS_PROXY unchanged; its token expires with the step"
            raise HttpRefusal(407, "pccpipe_proxy_token", words, fatal=True)
        self._take_slot(held[0])
        return held[0]

    def _take_slot(self, grant: Grant) -> None:
        if not self._slot.take(grant):
            raise HttpRefusal(429, "pccpipe_busy", limits.STEP_CONNECTIONS.exceeded(), fatal=True)

    def _body(self, stack: contextlib.ExitStack, grant: Grant) -> list[bytes]:
        """Return the body in the pieces that arrived. A large one waits for a slot, and holds it until `stack` ends."""
        if self._http.they_are_waiting_for_100_continue:
            self._send(h11.InformationalResponse(status_code=100, headers=[]))
        pieces: list[bytes] = []
        size = 0
        until = time.monotonic() + BODY_SECONDS
        while isinstance(event := self._next_of_body(until), h11.Data):
            if size <= limits.REQUEST_HERE.most < size + len(event.data):
                if not grant.large.acquire(timeout=BODY_SECONDS):
                    raise HttpRefusal(429, "pccpipe_busy", limits.LARGE_REQUESTS.exceeded(), fatal=True)
                stack.callback(grant.large.release)
                until = time.monotonic() + BODY_SECONDS
            size += len(event.data)
            if size > limits.REQUEST.most:
                raise HttpRefusal(413, "pccpipe_too_large", limits.REQUEST.exceeded(), fatal=True)
            pieces.append(bytes(event.data))
        if not isinstance(event, h11.EndOfMessage):
            raise ConnectionResetError("the request is incomplete")
        return pieces

    def _next_request(self) -> h11.Event:
        """Return the next head. Raises TimeoutError for one that arrives too slowly."""
        has_begun = bool(self._http.trailing_data[0])
        until = time.monotonic() + (HEAD_SECONDS if has_begun else IDLE_LIMIT)
        while (event := self._event()) is None:
            self._http.receive_data(self._receive(until))
            if not has_begun:
                has_begun, until = True, time.monotonic() + HEAD_SECONDS
        return event

    def _next_of_body(self, until: float) -> h11.Event:
        """Return the next piece of a body, or its end. Raises HttpRefusal at the timeout."""
        with contextlib.suppress(TimeoutError):
            while (event := self._event()) is None:
                self._http.receive_data(self._receive(until))
            if time.monotonic() <= until:
                return event
        raise HttpRefusal(408, "pccpipe_slow", f"a request must be complete in {BODY_SECONDS:g} s", fatal=True)

    def _event(self) -> h11.Event | None:
        """Return the next event, if it is complete."""
        event = self._http.next_event()
        if isinstance(event, h11.Event):
            return event
        return h11.ConnectionClosed() if event is h11.PAUSED else None

    def _receive(self, until: float) -> bytes:
        """Return the next bytes. Raises TimeoutError, also for a connection without a token that loses its slot."""
        if self._slot.grant:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError("the client is too slow")
            self._stream.settimeout(left)
            return self._stream.recv(PIECE)
        self._stream.settimeout(WAKE)
        while not self._slot.is_cut and time.monotonic() < self._token_due:
            with contextlib.suppress(TimeoutError):
                return self._stream.recv(PIECE)
        raise TimeoutError("the client showed no token")

    def _answer(self, refused: HttpRefusal) -> None:
        """Send an error."""
        body = refused.body(self._api)
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        if refused.status == 407:
            headers.append(("Proxy-Authenticate", 'Basic realm="pccpipe"'))
        if refused.fatal:
            headers.append(("Connection", "close"))
        self._send(h11.Response(status_code=refused.status, headers=headers))
        self._send(h11.Data(data=body))
        self._send(h11.EndOfMessage())

    def _linger(self) -> None:
        """Discard a little of the rest: a client whose connection closes at once would not read the answer."""
        self._stream.shutdown_write()
        self._stream.settimeout(WAKE)
        until = time.monotonic() + LINGER_LIMIT
        while time.monotonic() < until and not self._slot.is_cut:
            with contextlib.suppress(TimeoutError):
                if not self._stream.recv(PIECE):
                    return

    def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            self._stream.settimeout(SEND_LIMIT)
            self._stream.sendall(data)


def _plain(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """Return headers with names in lower case and unchanged values."""
    return [(name.decode("ascii").lower(), value.decode("latin-1")) for name, value in headers]
