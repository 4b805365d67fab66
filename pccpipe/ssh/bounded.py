"""Cuts off a server that sends more than it may: on a channel beyond its window, or a packet beyond SSH's sizes.

paramiko keeps all data, also beyond the window: a server that ignored a window of 2 MiB put 1.4 GB into memory in 3 s.
"""

from __future__ import annotations

import paramiko
from paramiko.packet import Packetizer

from pccpipe import limits


class TooMuchError(paramiko.SSHException):
    """The server sent more than it may, which ends the connection."""


class BoundedPacketizer(Packetizer):
    """Reads packets, and lines before the first packet, of a bounded size."""

    _in_line = 0
    """Bytes read for the line so far."""

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        if n > limits.SSH_PACKET.most:
            raise TooMuchError(limits.SSH_PACKET.exceeded())
        return super().read_all(n, check_rekey)

    def readline(self, timeout: float) -> str:
        self._in_line = 0
        return super().readline(timeout)

    def _read_timeout(self, timeout: float) -> bytes:
        piece: bytes = super()._read_timeout(timeout)  # type: ignore[misc]
        self._in_line += len(piece)
        if self._in_line > limits.SSH_LINE.most:
            raise TooMuchError(limits.SSH_LINE.exceeded())
        return piece


def check_extensions(message: paramiko.Message) -> None:
    """Check the number of extensions that a server claims to name: paramiko loops as often. Raises TooMuchError."""
    # Read as paramiko reads it: it pads a number that is cut.
    count = paramiko.Message(message.get_remainder()).get_int()
    if count > limits.SSH_EXTENSIONS.most:
        raise TooMuchError(limits.SSH_EXTENSIONS.exceeded())


def feed(channel: paramiko.Channel, message: paramiko.Message) -> None:
    """Receive data of a channel's stdout. Raises TooMuchError."""
    data = message.get_binary()
    _check_window(channel, data)
    channel.in_buffer.feed(data)


def feed_extended(channel: paramiko.Channel, message: paramiko.Message) -> None:
    """Receive data of a channel's stderr. Raises TooMuchError."""
    code = message.get_int()
    data = message.get_binary()
    _check_window(channel, data)
    if code != 1:
        return
    if channel.combine_stderr:
        channel.in_buffer.feed(data)
    else:
        channel.in_stderr_buffer.feed(data)


def _check_window(channel: paramiko.Channel, data: bytes) -> None:
    # Reading makes room again, so unread data is never more than the window.
    unread = len(channel.in_buffer) + len(channel.in_stderr_buffer)
    if unread + len(data) > channel.in_window_size:
        raise TooMuchError(f"{limits.SSH_WINDOW.exceeded()}: the server ignores the channel's window")
