"""Channels that close after the messages that are being sent on them, not before.

paramiko builds a message, releases its lock, and then sends the message. So a message of one thread can go out after
another thread's CLOSE. A server that knows no channel of that number ends the whole connection ("ieof packet referred
to nonexistent channel"). If it gave the number to a new channel, that channel's program gets an end of input, or
another program's input. On a busy machine, a script of which nothing arrived "succeeded" so.
"""

from __future__ import annotations

import threading
from typing import Any, cast

import paramiko


def sending(channel: paramiko.Channel) -> threading.Lock:
    """Return the lock to hold while something is sent on the channel."""
    return cast("threading.Lock", channel.__dict__.setdefault("pccpipe_sending", threading.Lock()))


def close(channel: paramiko.Channel) -> None:
    """Close a channel. Raises EOFError, OSError, SSHException if the connection has ended."""
    with channel.lock:
        messages = channel._close_internal()  # type: ignore[attr-defined]
    try:
        # A thread that waits for room to send has just learnt that there will be none.
        send(channel, messages)
    finally:
        # Also when the connection has ended: it closes the pipe that `fileno` made.
        channel.close()


def send(channel: paramiko.Channel, messages: tuple[paramiko.Message | None, ...]) -> None:
    """Send messages on a channel, after those that are being sent on it."""
    transport: Any = channel.transport  # paramiko's type hints leave out `_send_user_message`
    with sending(channel):
        for message in messages:
            if message is not None:
                transport._send_user_message(message)
