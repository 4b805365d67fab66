"""Connects a container to the domains of its `egress:`, and to nothing else.

Resolves each name once, on the controller, and checks the addresses before it connects. So no allowed name leads to the
controller, its network or a cloud's metadata service.
"""

from __future__ import annotations

import contextlib
import functools
import re
import select
import socket
import time
from collections.abc import Sequence

from pccpipe.errors import PccpipeError
from pccpipe.machine.base import ByteStream
from pccpipe.secrets.proxy import upstream
from pccpipe.secrets.proxy.grant import Grant
from pccpipe.secrets.proxy.hello import ALERT_UNRECOGNIZED_NAME, HelloScreen, RefusedHelloError
from pccpipe.secrets.proxy.ranges import is_public
from pccpipe.secrets.proxy.upstream import ClientRequest, UnreachableError, UpstreamAnswer
from pccpipe.values import cut

PORTS = (443, 80)
"""The ports of an entry without a port."""
IDLE_LIMIT = 600.0
"""Seconds of silence after which a tunnel is closed."""
HELLO_SECONDS = 60.0
"""Seconds in which a tunnel must begin with its ClientHello."""


class RefusedAddressError(PccpipeError):
    """An allowed name leads to a forbidden address."""


def split(target: str) -> tuple[str, int]:
    """Split `example.org:443` or `[::1]:443` into host and port; a target of another form has the port 0."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:@/]+)):(\d{1,5})", target)
    return (match[1] or match[2], int(match[3])) if match else (target, 0)


def allows(entries: Sequence[str], host: str, port: int) -> bool:
    """Say whether an entry allows a host: `example.org`, `*.example.org` (subdomains only), or `10.0.0.7:8080`."""
    host = host.lower().rstrip(".")
    return any(_matches(entry.lower(), host, port) for entry in entries)


def connect(entries: Sequence[str], host: str, port: int) -> socket.socket:
    """Connect to a host that the entries allow. Raises RefusedAddressError, UnreachableError."""
    where = f"{host}:{port}"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UnreachableError(f"{where}: {error.strerror or error}") from error
    addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
    for address in addresses:
        if not is_public(address) and not allows(entries, address, port):
            raise RefusedAddressError(_refusal(where, address, "not a public address"))
    failure: OSError | None = None
    for address in addresses:
        try:
            connected = socket.create_connection((address, port), timeout=upstream.CONNECT_LIMIT)
        except OSError as error:
            failure = error
        else:
            if _is_here(connected) and not allows(entries, address, port):
                connected.close()
                raise RefusedAddressError(_refusal(where, address, "this machine"))
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.settimeout(IDLE_LIMIT)
            return connected
    raise UnreachableError(f"connect to {where}: {failure}")


def pump(client: ByteStream, other: socket.socket, first: bytes, grant: Grant, host: str, port: int) -> None:
    """Pass bytes in both directions until both sides end, or until `IDLE_LIMIT` seconds of silence.

    `first` are bytes that the client sent already. A tunnel with TLS for another host is cut, with an alert and a
    warning. Bytes without TLS pass only to a port that an entry names.
    """
    client.settimeout(IDLE_LIMIT)
    named = [entry for entry in grant.egress if split(entry)[1] == port]
    screened = HelloScreen(host, plain=port not in PORTS and allows(named, host, port))
    try:
        _pump(client, other, first, screened)
    except RefusedHelloError as error:
        grant.warn(f"the tunnel to {cut(host, 200)}:{port} was cut: {error}")
        client.sendall(ALERT_UNRECOGNIZED_NAME)


def _pump(client: ByteStream, other: socket.socket, first: bytes, screened: HelloScreen) -> None:
    until = time.monotonic() + HELLO_SECONDS
    other.sendall(screened.from_client(first))
    client_fd, server_fd = client.fileno(), other.fileno()
    open_ends = {client_fd, server_fd}
    while open_ends:
        poller = select.poll()
        for fd in open_ends - ({client_fd} if screened.needs_answer else set()):
            poller.register(fd, select.POLLIN)
        is_due = screened.is_due
        wait = HELLO_SECONDS if screened.needs_answer else IDLE_LIMIT
        ready = poller.poll(max(0.0, until - time.monotonic() if is_due else wait) * 1000)
        if is_due and time.monotonic() > until:
            raise RefusedHelloError(f"no ClientHello in {HELLO_SECONDS:g} s")
        if not ready:
            return
        for fd, _ in ready:
            data = other.recv(upstream.PIECE) if fd == server_fd else client.recv(upstream.PIECE)
            if not data:
                open_ends.discard(fd)
                # A server that ended does not ask for another ClientHello.
                screened.needs_answer = screened.needs_answer and fd != server_fd
                client.shutdown_write() if fd == server_fd else other.shutdown(socket.SHUT_WR)
            elif fd == server_fd:
                screened.from_server(data)
                client.sendall(data)
            else:
                other.sendall(screened.from_client(data))


class EgressFetch:
    """One request by plain HTTP, as a context manager. The grant's end cuts it."""

    def __init__(self, grant: Grant, host: str, port: int, request: ClientRequest) -> None:
        self._grant = grant
        self._host = host
        self._port = port
        self._request = request
        self._stack = contextlib.ExitStack()

    def answer(self) -> UpstreamAnswer:
        """Send the request and wait for the head of the answer. Raises RefusedAddressError, UnreachableError."""
        connected = connect(self._grant.egress, self._host, self._port)
        connection = upstream.over(connected, self._host, self._port)
        self._stack.callback(connection.close)
        self._stack.enter_context(self._grant.ending(functools.partial(upstream.shut, connected)))
        headers = [(name, value) for name, value in self._request.headers if name not in upstream.OF_ONE_HOP]
        response = upstream.ask(connection, self._request.method, self._request.path, headers, self._request.body)
        headers = upstream.passed_down(response, upstream.OF_ONE_HOP)
        return UpstreamAnswer(response.status, upstream.reason(response), headers, upstream.pieces(response))

    def __enter__(self) -> EgressFetch:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _refusal(where: str, address: str, kind: str) -> str:
    hint = "to allow it, put the address itself into the container's `egress:`"
    return f"{where} was refused: it leads to {address}, which is {kind}; {hint}"


def _matches(entry: str, host: str, port: int) -> bool:
    name, known_port = split(entry)
    if known_port == 0:
        name = entry.strip("[]")
    if port not in ((known_port,) if known_port else PORTS):
        return False
    return host.endswith(name[1:]) and host != name[1:] if name.startswith("*.") else host == name


def _is_here(connected: socket.socket) -> bool:
    """Say whether it leads to this machine, by any of its addresses."""
    return bool(connected.getsockname()[0] == connected.getpeername()[0])
