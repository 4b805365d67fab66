"""Connections from programs of the VM to this process, through the run's one SSH connection.

The server listens there, at a Unix socket or a port, and opens a channel for each connection. It stops when the SSH
connection ends, so all of it is asked for again on the next one. A Unix socket is made under a new name and then takes
the place of the old one: sshd removes none of its own, and one that still waits for a connection that is gone for us
would keep the name.
"""

from __future__ import annotations

import secrets
import shlex
import threading
import time
from collections.abc import Callable
from typing import TypeAlias

import paramiko
from msgspec import Struct
from paramiko.common import (
    OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED,
    cMSG_CHANNEL_OPEN_FAILURE,
    cMSG_CHANNEL_OPEN_SUCCESS,
)

from pccpipe.errors import Unavailable
from pccpipe.machine.base import ByteStream, Done
from pccpipe.outcome import Reason
from pccpipe.ssh.channels import ChannelStream
from pccpipe.ssh.transport import SSH_ERRORS, Transport

Taker: TypeAlias = "Callable[[ByteStream], None]"
AGAIN_LIMIT = 60.0
"""Seconds in which a new connection must bring everything back; a port may still be the old connection's."""
TRIES = 3
"""Of one request: the answer to a sign of life that was asked for at that moment can be taken for its own."""


class _Socket(Struct, frozen=True):
    path: str
    open_to_all: bool


class _Port(Struct, frozen=True):
    number: int


class Forwards:
    """All that one connection takes on the VM. Safe from many threads.

    Args:
        host: the VM's name, for words.
        run: runs a housekeeping script there.
    """

    def __init__(self, host: str, run: Callable[[str], Done]) -> None:
        self._host = host
        self._run = run
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._wanted: dict[_Socket | _Port, Taker] = {}

    def add_socket(
        self, transport: Transport, path: str, accept: Taker, open_to_all: bool = False
    ) -> ForwardedListener:
        """Raises `Unavailable`, and what paramiko raises for a connection that has ended."""
        wanted = _Socket(path, open_to_all)
        with self._lock:
            self._wanted[wanted] = accept
        self._make_socket(transport, wanted)
        return ForwardedListener(self, wanted)

    def add_port(self, transport: Transport, port: int, accept: Taker) -> ForwardedListener:
        """The same for a port of 127.0.0.1."""
        number = self._make_port(transport, port)
        wanted = _Port(number)
        with self._lock:
            self._wanted[wanted] = accept
        return ForwardedListener(self, wanted, number)

    def remove(self, wanted: _Socket | _Port) -> None:
        """Nothing that comes there is taken any more."""
        with self._lock:
            self._wanted.pop(wanted, None)

    def renew(self, transport: Transport) -> None:
        """Ask for all of it on a new connection, in a thread: the one who connects need not wait for that."""
        transport.give_openings_to(lambda message: _take_channel(transport, message, self._taker))
        with self._lock:
            wanted = [*self._wanted]
        if wanted:
            threading.Thread(
                target=self._make_again, args=(transport, wanted), name="pccpipe-forward", daemon=True
            ).start()

    def _make_again(self, transport: Transport, wanted: list[_Socket | _Port]) -> None:
        until = time.monotonic() + AGAIN_LIMIT
        pause = 0.1
        while wanted and transport.is_active() and time.monotonic() < until:
            try:
                match wanted[0]:
                    case _Socket() as socket:
                        self._make_socket(transport, socket)
                    case _Port(number):
                        self._make_port(transport, number)
                wanted.pop(0)
            except (Unavailable, *SSH_ERRORS):
                time.sleep(pause)
                pause = min(pause * 2, 2.0)

    def _make_socket(self, transport: Transport, wanted: _Socket) -> None:
        path = wanted.path
        for _ in range(TRIES):
            new = f"{path}.{secrets.token_hex(4)}"
            self._ask(transport, "streamlocal-forward@openssh.com", new)
            # It says whether the server listens; the answer may have been another's.
            name = shlex.quote(new)
            chmod = f"chmod 666 {name} && " if wanted.open_to_all else ""
            move = f"{chmod}exec mv -f {name} {shlex.quote(path)}"
            done = self._run(f"[ -S {name} ] && {move}")
            if done.code == 0:
                return
            _check(transport)
        if len(path) > 90:
            hint = (
                f"{path} may be too long for a socket's address, which has 108 bytes: take a shorter `root:` or run id"
            )
        else:
            settings = "AllowStreamLocalForwarding yes and AllowTcpForwarding yes (and no DisableForwarding)"
            hint = f"sshd there must allow it: {settings} in sshd_config"
        raise Unavailable(Reason.PROXY_REFUSED, f"sshd on {self._host} forwards no socket at {path}", hint)

    def _make_port(self, transport: Transport, port: int) -> int:
        for _ in range(TRIES):
            answer = self._ask(transport, "tcpip-forward", "127.0.0.1", port)
            if answer is not None:
                return port or answer.get_int()
            _check(transport)
        hint = "sshd there must allow it: AllowTcpForwarding yes (and no DisableForwarding) in sshd_config"
        raise Unavailable(Reason.PROXY_REFUSED, f"sshd on {self._host} forwards no port {port or ''}".rstrip(), hint)

    def _ask(self, transport: Transport, kind: str, where: str, port: int | None = None) -> paramiko.Message | None:
        # paramiko keeps one answer at a time.
        with self._asking:
            return transport.ask(kind, where, port)

    def _taker(self, where: str, port: int | None) -> Taker | None:
        """Who takes a connection that has come to an address; None if nobody does any more."""
        with self._lock:
            for wanted, accept in self._wanted.items():
                match wanted:
                    case _Socket(path=path):
                        is_it = port is None and where.rpartition(".")[0] == path
                    case _Port(number):
                        is_it = port == number
                if is_it:
                    return accept
        return None


def _check(transport: Transport) -> None:
    """A connection that has ended has refused nothing."""
    if not transport.is_active():
        raise EOFError("the SSH connection ended")


def _take_channel(
    transport: Transport, message: paramiko.Message, taker: Callable[[str, int | None], Taker | None]
) -> None:
    """A channel that the server opens: paramiko's `_parse_channel_open`, which knows no Unix sockets.

    Runs in the transport's thread, which must not wait.
    """
    kind, number = message.get_text(), message.get_int()
    window, packet = message.get_int(), message.get_int()
    take = None
    if kind == "forwarded-streamlocal@openssh.com":
        take = taker(message.get_text(), None)
    elif kind == "forwarded-tcpip":
        take = taker(message.get_text(), message.get_int())
    answer = paramiko.Message()
    if take is None:
        answer.add_byte(cMSG_CHANNEL_OPEN_FAILURE)
        answer.add_int(number)
        answer.add_int(OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED)
        answer.add_string("")
        answer.add_string("en")
        transport.answer(lambda: transport._send_user_message(answer))
        return
    with transport.lock:
        ours = transport._next_channel()
        channel = paramiko.Channel(ours)
        transport._channels.put(ours, channel)
        transport.channels_seen[ours] = True
        channel._set_transport(transport)  # type: ignore[attr-defined]
        channel._set_window(transport.default_window_size, transport.default_max_packet_size)  # type: ignore[attr-defined]
        channel._set_remote_channel(number, window, packet)  # type: ignore[attr-defined]
    answer.add_byte(cMSG_CHANNEL_OPEN_SUCCESS)
    for value in (number, ours, transport.default_window_size, transport.default_max_packet_size):
        answer.add_int(value)

    def confirm() -> None:
        transport._send_user_message(answer)
        take(ChannelStream(channel))

    transport.answer(confirm)


class ForwardedListener:
    """A `Served`."""

    def __init__(self, forwards: Forwards, wanted: _Socket | _Port, port: int = 0) -> None:
        self.port = port
        self._forwards = forwards
        self._wanted = wanted

    def close(self) -> None:
        self._forwards.remove(self._wanted)
