"""Connections from programs of the VM to this process, through the run's one SSH connection.

The server listens there, at a Unix socket or a port, and opens a channel for each connection. It stops when the SSH
connection ends, so pccpipe asks for all listeners again on the next one. sshd makes a Unix socket under a new name,
which then replaces the old one: sshd never removes its sockets, and the sshd of a lost connection would keep the name.
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

Accept: TypeAlias = "Callable[[ByteStream], None]"
AGAIN_LIMIT = 60.0
"""Seconds for a new connection to open all listeners again; the old connection may still hold a port."""
TRIES = 3
"""Tries of one request: paramiko may take a ping's answer for the request's."""


class _Socket(Struct, frozen=True):
    path: str
    open_to_all: bool


class _Port(Struct, frozen=True):
    number: int


class Forwards:
    """All listeners of one connection on the VM. Safe from many threads.

    Args:
        host: the VM's name, for messages.
        run: runs a housekeeping script there.
    """

    def __init__(self, host: str, run: Callable[[str], Done]) -> None:
        self._host = host
        self._run = run
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._wanted: dict[_Socket | _Port, Accept] = {}

    def add_socket(
        self, transport: Transport, path: str, accept: Accept, open_to_all: bool = False
    ) -> ForwardedListener:
        """Listen at a Unix socket. Raises `Unavailable`, and paramiko's errors for a connection that has ended."""
        wanted = _Socket(path, open_to_all)
        with self._lock:
            self._wanted[wanted] = accept
        self._make_socket(transport, wanted)
        return ForwardedListener(self, wanted)

    def add_port(self, transport: Transport, port: int, accept: Accept) -> ForwardedListener:
        """Listen at a port of 127.0.0.1; raises the same."""
        number = self._make_port(transport, port)
        wanted = _Port(number)
        with self._lock:
            self._wanted[wanted] = accept
        return ForwardedListener(self, wanted, number)

    def remove(self, wanted: _Socket | _Port) -> None:
        """Refuse later connections there."""
        with self._lock:
            self._wanted.pop(wanted, None)

    def renew(self, transport: Transport) -> None:
        """Open all listeners on a new connection, in a thread, so that the caller need not wait."""
        transport.pass_openings_to(lambda message: _answer_opening(transport, message, self._accept_of))
        with self._lock:
            wanted = [*self._wanted]
        if wanted:
            threading.Thread(target=self._reopen, args=(transport, wanted), name="pccpipe-forward", daemon=True).start()

    def _reopen(self, transport: Transport, wanted: list[_Socket | _Port]) -> None:
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
            # Check that the server listens, as the answer may have been another request's.
            name = shlex.quote(new)
            chmod = f"chmod 666 {name} && " if wanted.open_to_all else ""
            move = f"{chmod}exec mv -f {name} {shlex.quote(path)}"
            done = self._run(f"[ -S {name} ] && {move}")
            if done.code == 0:
                return
            _check(transport)
        if len(path) > 90:
            hint = (
                f"{path} may be too long for a socket's address, which has 108 bytes: use a shorter `root:` or run id"
            )
        else:
            settings = "AllowStreamLocalForwarding yes and AllowTcpForwarding yes (and no DisableForwarding)"
            hint = f"allow it in the VM's sshd_config: {settings}"
        raise Unavailable(Reason.PROXY_REFUSED, f"sshd on {self._host} does not forward the socket {path}", hint)

    def _make_port(self, transport: Transport, port: int) -> int:
        for _ in range(TRIES):
            answer = self._ask(transport, "tcpip-forward", "127.0.0.1", port)
            if answer is not None:
                return port or answer.get_int()
            _check(transport)
        hint = "allow it in the VM's sshd_config: AllowTcpForwarding yes (and no DisableForwarding)"
        what = f"port {port}" if port else "a port"
        raise Unavailable(Reason.PROXY_REFUSED, f"sshd on {self._host} does not forward {what}", hint)

    def _ask(self, transport: Transport, kind: str, where: str, port: int | None = None) -> paramiko.Message | None:
        # paramiko keeps one answer at a time.
        with self._asking:
            return transport.ask(kind, where, port)

    def _accept_of(self, where: str, port: int | None) -> Accept | None:
        """Return the function that takes the connections at an address; None if it was removed."""
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
    """Raise EOFError if the connection has ended: that is not a refusal."""
    if not transport.is_active():
        raise EOFError("the SSH connection ended")


def _answer_opening(
    transport: Transport, message: paramiko.Message, accept_of: Callable[[str, int | None], Accept | None]
) -> None:
    """Answer a channel that the server opens, as paramiko's `_parse_channel_open` does, which knows no Unix sockets.

    Runs in the transport's thread, which must not wait.
    """
    kind, number = message.get_text(), message.get_int()
    window, packet = message.get_int(), message.get_int()
    accept = None
    if kind == "forwarded-streamlocal@openssh.com":
        accept = accept_of(message.get_text(), None)
    elif kind == "forwarded-tcpip":
        accept = accept_of(message.get_text(), message.get_int())
    answer = paramiko.Message()
    if accept is None:
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
        accept(ChannelStream(channel))

    transport.answer(confirm)


class ForwardedListener:
    """A `Listener`."""

    def __init__(self, forwards: Forwards, wanted: _Socket | _Port, port: int = 0) -> None:
        self.port = port
        self._forwards = forwards
        self._wanted = wanted

    def close(self) -> None:
        self._forwards.remove(self._wanted)
