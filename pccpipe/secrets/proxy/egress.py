"""The way out of a container: to the domains of its `egress:` and to nothing else.

Names are resolved here, once, and what they resolve to is looked at before anything connects: a name that is allowed
does not lead to this machine, its network or a cloud's metadata service.
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
"""That an entry without a port means."""
IDLE_LIMIT = 600.0
"""Seconds in which nothing passes through a tunnel before it is closed."""
HELLO_SECONDS = 60.0
"""Seconds in which a tunnel must begin with its ClientHello."""


class RefusedAddressError(PccpipeError):
    """An allowed name leads where no name may lead."""


def split(target: str) -> tuple[str, int]:
    """`example.org:443` and `[::1]:443` as (host, port); a target that is neither has the port 0."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:@/]+)):(\d{1,5})", target)
    return (match[1] or match[2], int(match[3])) if match else (target, 0)


def allows(entries: Sequence[str], host: str, port: int) -> bool:
    """Whether the entries have a host: `example.org`, `*.example.org` (not `example.org` itself), `10.0.0.7:8080`."""
    host = host.lower().rstrip(".")
    return any(_matches(entry.lower(), host, port) for entry in entries)


def connect(entries: Sequence[str], host: str, port: int) -> socket.socket:
    """A connection to a host that the entries have. Raises RefusedAddressError, UnreachableError."""
    where = f"{host}:{port}"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UnreachableError(f"{where}: {error.strerror or error}") from error
    addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
    for address in addresses:
        if not is_public(address) and not allows(entries, address, port):
            hint = "to let it through, put the address itself into the container's `egress:`"
            raise RefusedAddressError(f"{where} was refused: it leads to {address}, which is no public address; {hint}")
    failure: OSError | None = None
    for address in addresses:
        try:
            connected = socket.create_connection((address, port), timeout=upstream.CONNECT_LIMIT)
        except OSError as error:
            failure = error
        else:
            if _is_here(connected) and not allows(entries, address, port):
                connected.close()
                hint = "to let it through, put the address itself into the container's `egress:`"
                raise RefusedAddressError(f"{where} was refused: it leads to {address}, which is this machine; {hint}")
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.settimeout(IDLE_LIMIT)
            return connected
    raise UnreachableError(f"connect to {where}: {failure}")


def pump(client: ByteStream, other: socket.socket, first: bytes, grant: Grant, host: str, port: int) -> None:
    """Bytes both ways until both sides have ended, or nothing came for `IDLE_LIMIT` seconds.

    `first` came from the client already. What begins with TLS for another host is cut, with an alert and a warning;
    bytes without TLS pass only to a port that an entry names.
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
    mine, its = client.fileno(), other.fileno()
    open_ends = {mine, its}
    while open_ends:
        poller = select.poll()
        for fd in open_ends - ({mine} if screened.needs_answer else set()):
            poller.register(fd, select.POLLIN)
        is_due = screened.is_due
        wait = HELLO_SECONDS if screened.needs_answer else IDLE_LIMIT
        ready = poller.poll(max(0.0, until - time.monotonic() if is_due else wait) * 1000)
        if is_due and time.monotonic() > until:
            raise RefusedHelloError(f"no ClientHello came in {HELLO_SECONDS:g} s")
        if not ready:
            return
        for fd, _ in ready:
            data = other.recv(upstream.PIECE) if fd == its else client.recv(upstream.PIECE)
            if not data:
                open_ends.discard(fd)
                # A server that has ended asks for no other ClientHello.
                screened.needs_answer = screened.needs_answer and fd != its
                client.shutdown_write() if fd == its else other.shutdown(socket.SHUT_WR)
            elif fd == its:
                screened.from_server(data)
                client.sendall(data)
            else:
                other.sendall(screened.from_client(data))


class EgressFetch:
    """One request by plain HTTP, as a context. The grant's end cuts it."""

    def __init__(self, grant: Grant, host: str, port: int, asked: ClientRequest) -> None:
        self._grant = grant
        self._host = host
        self._port = port
        self._asked = asked
        self._stack = contextlib.ExitStack()

    def answer(self) -> UpstreamAnswer:
        """Ask, and wait for the answer's head. Raises RefusedAddressError, UnreachableError."""
        connected = connect(self._grant.egress, self._host, self._port)
        connection = upstream.over(connected, self._host, self._port)
        self._stack.callback(connection.close)
        self._stack.enter_context(self._grant.ending(functools.partial(upstream.shut, connected)))
        headers = [(name, value) for name, value in self._asked.headers if name not in upstream.OF_ONE_HOP]
        response = upstream.ask(connection, self._asked.method, self._asked.path, headers, self._asked.body)
        headers = upstream.passed_down(response, upstream.OF_ONE_HOP)
        return UpstreamAnswer(response.status, upstream.reason(response), headers, upstream.pieces(response))

    def __enter__(self) -> EgressFetch:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _matches(entry: str, host: str, port: int) -> bool:
    name, known_port = split(entry)
    if known_port == 0:
        name = entry.strip("[]")
    if port not in ((known_port,) if known_port else PORTS):
        return False
    return host.endswith(name[1:]) and host != name[1:] if name.startswith("*.") else host == name


def _is_here(connected: socket.socket) -> bool:
    """Whether it leads to this machine, by whichever of its addresses."""
    return bool(connected.getsockname()[0] == connected.getpeername()[0])
