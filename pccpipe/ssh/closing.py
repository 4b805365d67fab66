"""Channels that close after what is being sent on them, not before.

paramiko builds a message, lets its lock go, and then sends it: a message of one thread can so go out behind another
thread's CLOSE. By then the server may know no channel of that number, and ends the whole connection ("ieof packet
referred to nonexistent channel"); or it has given the number to a new channel, whose program gets the end of its input,
or somebody else's input (seen on a busy machine: a script of which nothing arrived "succeeded").
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, cast

import paramiko

if TYPE_CHECKING:
    from pccpipe.ssh.login import Transport


def sending(channel: paramiko.Channel) -> threading.Lock:
    """To be held while something is sent on the channel."""
    return cast("threading.Lock", channel.__dict__.setdefault("pccpipe_sending", threading.Lock()))


def close(channel: paramiko.Channel) -> None:
    """Close it. Raises EOFError, OSError, SSHException when the connection has ended."""
    with channel.lock:
        messages = channel._close_internal()  # type: ignore[attr-defined]
    try:
        # A thread that waits for room to send has just learnt that there will be none.
        _send(channel, messages)
    finally:
        # Also when the connection has ended: it closes the pipe that `fileno` made.
        channel.close()


def closed_by_server(channel: paramiko.Channel, _: paramiko.Message) -> None:
    """The server has closed it: what `paramiko.Channel._handle_close` does. Runs in the transport's thread."""
    with channel.lock:
        messages = channel._close_internal()  # type: ignore[attr-defined]
        _transport(channel)._unlink_channel(channel.chanid)
    _transport(channel).answer(lambda: _send(channel, messages))


def _send(channel: paramiko.Channel, messages: tuple[paramiko.Message | None, ...]) -> None:
    with sending(channel):
        for message in messages:
            if message is not None:
                _transport(channel)._send_user_message(message)


def _transport(channel: paramiko.Channel) -> Transport:
    return cast("Transport", channel.transport)
