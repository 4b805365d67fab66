"""Fuzz connections: an SSH server's packets, and an API's answers on their way through the proxy."""

from __future__ import annotations

import io
import threading
from typing import cast
from unittest.mock import patch

import h11
import paramiko
from paramiko.auth_handler import AuthHandler

from pccpipe import limits
from pccpipe.machine.base import Done
from pccpipe.secrets.proxy import upstream
from pccpipe.secrets.proxy.exchange import Exchange
from pccpipe.secrets.proxy.grant import Api, Grant
from pccpipe.secrets.proxy.meter import Meter, ModelUse
from pccpipe.secrets.proxy.proxy import Proxy
from pccpipe.secrets.proxy.slots import ConnectionSlots
from pccpipe.ssh.channels import ChannelProcess
from pccpipe.ssh.forwards import Forwards
from pccpipe.ssh.heard import HeardSocket
from pccpipe.ssh.transport import Transport
from tests.fuzz.sides import NEXT, FuzzedStream
from tests.fuzz.target import SECRET, WORD, Target

_BLOCK = 8


class _Wire(FuzzedStream):
    """A connection with the methods of a socket that paramiko and http.client use."""

    def send(self, data: bytes) -> int:
        self.sendall(data)
        return len(data)

    def setsockopt(self, *_: object) -> None:
        return

    def shutdown(self, _: int) -> None:
        return

    def makefile(self, _: str) -> io.BufferedReader:
        return io.BufferedReader(_Raw(self))


class _Raw(io.RawIOBase):
    def __init__(self, wire: _Wire) -> None:
        self._wire = wire

    def readable(self) -> bool:
        return True

    def readinto(self, into: memoryview, /) -> int:  # type: ignore[override]
        piece = self._wire.recv(len(into))
        into[: len(piece)] = piece
        return len(piece)


class _LoggedIn(Transport):
    """A transport right after the login, without a cipher."""

    def _check_banner(self) -> None:
        return

    def _send_kex_init(self) -> None:
        return

    def _expect_packet(self, *_: int) -> None:
        return


def _packets(data: bytes) -> None:
    stream = b""
    for payload in data.split(NEXT):
        padding = -(5 + len(payload)) % _BLOCK
        padding += _BLOCK if padding < 4 else 0
        stream += (1 + len(payload) + padding).to_bytes(4, "big") + bytes([padding]) + payload + bytes(padding)
    transport = _LoggedIn(HeardSocket(cast("paramiko.Channel", _Wire(stream))))
    transport.initial_kex_done = True
    transport.clear_to_send_timeout = 0.01
    transport.clear_to_send.set()
    handler = AuthHandler(transport)
    handler.authenticated = True
    transport.auth_handler = handler
    forwards = Forwards("vm", lambda _: Done(0, b"", b""))
    forwards.renew(transport)
    with patch.object(transport, "ask", return_value=paramiko.Message(b"")):
        forwards.add_port(transport, 80, lambda stream: stream.close())
    channel = paramiko.Channel(0)
    transport._channels.put(0, channel)
    transport.channels_seen[0] = True
    channel._set_transport(transport)  # type: ignore[attr-defined]
    channel._set_window(limits.SSH_WINDOW.most, 1 << 15)  # type: ignore[attr-defined]
    channel._set_remote_channel(0, 1 << 20, 1 << 15)  # type: ignore[attr-defined]
    process = ChannelProcess(channel, lambda: None)
    _run(transport)
    assert len(channel.in_buffer) + len(channel.in_stderr_buffer) <= limits.SSH_WINDOW.most
    process.close()


def _handshake(data: bytes) -> None:
    _run(Transport(HeardSocket(cast("paramiko.Channel", _Wire(data)))))


def _run(transport: Transport) -> None:
    """Read all packets, in this thread."""
    transport.active = True  # type: ignore[attr-defined]
    with patch.object(threading.Thread, "start"):
        transport.run()
    error = transport.get_exception()
    transport.close()
    # Code that waits for the server does not expect anything else that it keeps.
    if error is not None and not isinstance(error, (paramiko.SSHException, EOFError, OSError)):
        raise error


def _answer(data: bytes) -> None:
    api = Api.at("KEY", SECRET, "http://api.invalid/v1", ("POST /responses",))
    grant = Grant((api,), (), Meter(10**6, ModelUse(), lambda _: None), lambda _: None)
    proxy = Proxy()
    token = next(iter(proxy.issue(grant).values()))
    body = b'{"model":"m","input":"hello"}'
    head = f"POST /v1/responses HTTP/1.1\r\nHost: p\r\nAuthorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n"
    agent = FuzzedStream(f"{head}\r\n".encode() + body)
    slot = ConnectionSlots().enter()
    assert slot is not None
    wire = _Wire(data.replace(WORD, SECRET.encode()))
    with patch.object(upstream, "_connect", lambda *_, **__: upstream.over(wire, "api.invalid", 80)):  # type: ignore[arg-type]
        Exchange(agent, slot, proxy.holder).run()
    slot.leave()
    proxy.end(grant)
    got = b"".join(agent.sent)
    assert SECRET.encode() not in got
    # No tokens stay reserved, and no call adds tokens.
    assert grant.meter.used.reserved == 0
    assert grant.meter.used.tokens.total >= 0
    _is_one_answer(got)


def _is_one_answer(got: bytes) -> None:
    """Assert that a client that asked once reads one answer, or one that was cut."""
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method="POST", target="/", headers=[("Host", "p"), ("Content-Length", "0")]))
    reader.send(h11.EndOfMessage())
    reader.receive_data(got)
    events: list[object] = []
    while isinstance(event := reader.next_event(), h11.Event) and not isinstance(event, h11.ConnectionClosed):
        events.append(event)
        if isinstance(event, h11.EndOfMessage):
            break
    assert isinstance(events[0], h11.Response)
    assert not reader.trailing_data[0]


TARGETS = {
    "answer": Target(_answer),
    "ssh": Target(_packets),
    "ssh-handshake": Target(_handshake),
}
