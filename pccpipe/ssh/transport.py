"""The SSH transport: paramiko's, held to what a server may send, and safe to use from its own thread."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import paramiko
from cryptography.exceptions import InvalidTag
from paramiko.common import (
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_OPEN,
    cMSG_GLOBAL_REQUEST,
)
from paramiko.kex_curve25519 import KexCurve25519

from pccpipe.ssh import bounded, closing
from pccpipe.ssh.heard import PING_INTERVAL, HeardSocket

if TYPE_CHECKING:
    from paramiko.transport import ChannelMap


# paramiko also logs what it raises, and without a handler Python prints that on the terminal.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

SSH_ERRORS = (paramiko.SSHException, OSError, EOFError)
"""The errors of paramiko when a connection breaks, or the server refuses or breaks the protocol."""


def _closed_by_server(channel: paramiko.Channel, _: paramiko.Message) -> None:
    """Do what `paramiko.Channel._handle_close` does, in the transport's thread: the server has closed the channel."""
    transport = cast("Transport", channel.transport)
    with channel.lock:
        messages = channel._close_internal()  # type: ignore[attr-defined]
        transport._unlink_channel(channel.chanid)
    transport.answer(lambda: closing.send(channel, messages))


class Transport(paramiko.Transport):
    """A transport that logs nothing, and keeps the server's parting words."""

    if TYPE_CHECKING:  # paramiko's type hints leave these out
        _channels: ChannelMap
        _handler_table: dict[int, Callable[[paramiko.Message], None]]

        def _next_channel(self) -> int: ...
        def _sanitize_packet_size(self, size: int | None) -> int: ...
        def _sanitize_window_size(self, size: int | None) -> int: ...
        def _send_message(self, message: paramiko.Message) -> None: ...
        def _send_user_message(self, message: paramiko.Message) -> None: ...
        def _unlink_channel(self, chanid: int) -> None: ...
    else:
        _channel_handler_table = {
            **paramiko.Transport._channel_handler_table,
            MSG_CHANNEL_CLOSE: _closed_by_server,
            MSG_CHANNEL_DATA: bounded.feed,
            MSG_CHANNEL_EXTENDED_DATA: bounded.feed_extended,
        }
        # GCM first: other ciphers need a digest for each packet, which takes longer than the encryption.
        _preferred_ciphers = sorted(paramiko.Transport._preferred_ciphers, key=lambda name: "gcm" not in name)
        # paramiko knows only the older name of it; hardened servers have only that of RFC 8731.
        _preferred_kex = ("curve25519-sha256", *paramiko.Transport._preferred_kex)
        _kex_info = {**paramiko.Transport._kex_info, "curve25519-sha256": KexCurve25519}

        def _really_parse_kex_init(self, m, ignore_first_byte=False):
            parsed = super()._really_parse_kex_init(m, ignore_first_byte)
            # With the first byte, the message is our own.
            self.offered = self.offered if ignore_first_byte else parsed
            return parsed

    def __init__(self, heard: HeardSocket) -> None:
        super().__init__(heard)  # type: ignore[arg-type]
        self.heard = heard
        self.packetizer = bounded.BoundedPacketizer(heard)  # type: ignore[arg-type]
        self.parting_words = ""
        self.offered: dict[str, list[str]] = {}
        """The algorithms that the server offers, by paramiko's names of the lists."""

    def get_exception(self) -> Exception | None:
        error = super().get_exception()
        match error:
            case None | paramiko.SSHException() | EOFError() | OSError():
                return error
            # paramiko passes on foreign errors: those of cryptography, and of its own parsing.
            case InvalidTag():
                return paramiko.SSHException("a packet was changed on the way")
            case _:
                return paramiko.SSHException(f"the server sent invalid SSH ({type(error).__name__})")

    def _parse_ext_info(self, message: paramiko.Message) -> None:
        bounded.check_extensions(message)
        super()._parse_ext_info(message)  # type: ignore[misc]

    def _log(self, level: int, msg: str | list[str], *args: object) -> None:  # noqa: ARG002
        # paramiko gives the text of a MSG_DISCONNECT only to its log.
        if isinstance(msg, str) and (parting := re.match(r"Disconnect \(code \d+\): (.+)", msg)):
            self.parting_words = parting[1]

    def ask(self, kind: str, where: str, port: int | None) -> paramiko.Message | None:
        """Make a global request about an address, and wait for its answer: None means no."""
        return self.global_request(kind, (where,) if port is None else (where, port))

    def pass_openings_to(self, handle: Callable[[paramiko.Message], None]) -> None:
        """Pass the channels that the server opens to `handle`, in the transport's thread."""
        self._handler_table = {**self._handler_table, MSG_CHANNEL_OPEN: handle}

    def answer(self, send: Callable[[], None]) -> None:
        """Send something from the transport's thread, which must never wait for a key exchange: it must finish that.

        During one, another thread waits and sends. paramiko would wait in this one, and end the connection after 30 s.
        """

        def send_later() -> None:
            with contextlib.suppress(*SSH_ERRORS):
                send()

        if self.clear_to_send.is_set():
            send()
        else:
            threading.Thread(target=send_later, name="pccpipe-ssh-answer", daemon=True).start()

    def start_pings(self) -> None:
        """Ask the server for a sign of life in each quiet `PING_INTERVAL`; `HeardSocket` notices the answer."""
        self.packetizer.set_keepalive(PING_INTERVAL, self.ping)

    def ping(self) -> None:
        """Ask the server for a sign of life."""
        # Also runs in the transport's own thread, which must never wait for a key exchange.
        if not self.clear_to_send.is_set():
            return
        message = paramiko.Message()
        message.add_byte(cMSG_GLOBAL_REQUEST)
        message.add_string("keepalive@openssh.com")
        message.add_boolean(True)
        self._send_user_message(message)
