"""Channels of the connection, as the streams and processes of the seam `Machine`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import paramiko
from paramiko.buffered_pipe import BufferedPipe
from paramiko.common import cMSG_CHANNEL_OPEN

from pccpipe.ssh import closing
from pccpipe.ssh.transport import SSH_ERRORS, Transport

PIECE = 64 * 1024
"""Bytes given to a channel at once. `sendall` copies the rest at each packet of 32 KiB: 200 MB at once took 292 s."""

T = TypeVar("T")


class _Received(BufferedPipe):  # type: ignore[type-arg]
    """The unread data of a channel.

    At each read paramiko's own array moves the rest, 2 MiB behind a slow reader; a bytearray drops its beginning.
    """

    def __init__(self) -> None:
        super().__init__()
        self._buffer = bytearray()

    def _buffer_frombytes(self, data: bytes) -> None:
        self._buffer += data

    def _buffer_tobytes(self, limit: int | None = None) -> bytes:
        with memoryview(self._buffer) as view:
            return bytes(view[:limit])


class ChannelStream:
    """A channel as a `ByteStream`. If the connection ends, it raises ConnectionError and returns no end of file."""

    def __init__(self, channel: paramiko.Channel, released: Callable[[], None] = lambda: None) -> None:
        self._channel = channel
        self._released = released
        self._close_lock = threading.Lock()
        self._closed = False

    def fileno(self) -> int:
        with self._close_lock:
            if self._closed:
                # paramiko would make a pipe for it, and never close it.
                raise ConnectionResetError("the channel is closed")
            return self._channel.fileno()

    def recv(self, size: int) -> bytes:
        return self._received(self._checked(lambda: self._channel.recv(size)))

    def sendall(self, data: bytes) -> None:
        view = memoryview(data)
        for start in range(0, len(view), PIECE):
            piece = bytes(view[start : start + PIECE])
            with closing.sending(self._channel):
                self._checked(lambda piece=piece: self._channel.sendall(piece))  # type: ignore[misc]

    def settimeout(self, seconds: float | None) -> None:
        self._channel.settimeout(seconds)

    def shutdown_write(self) -> None:
        with closing.sending(self._channel):
            self._checked(self._channel.shutdown_write)

    def close(self) -> None:
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
        try:
            closing.close(self._channel)
        except SSH_ERRORS:
            pass  # the connection is gone, and the channel with it
        finally:
            self._released()

    def _received(self, data: bytes) -> bytes:
        if not data and not self._channel.eof_received:
            raise ConnectionResetError("the SSH connection ended")
        return data

    def _checked(self, use: Callable[[], T]) -> T:
        # Receiving also sends now and then: the message that there is room for more.
        try:
            return use()
        except TimeoutError:
            raise
        except SSH_ERRORS as error:
            raise ConnectionResetError(str(error) or "the SSH connection ended") from error


class ChannelProcess(ChannelStream):
    """A channel for a program, as a `Process`. Use either its `ready` or its `fileno`, never both."""

    _arrived: _Arrived | None = None

    def __init__(self, channel: paramiko.Channel, released: Callable[[], None]) -> None:
        super().__init__(channel, released)
        # Nothing has arrived yet: the program has not begun.
        channel.in_buffer, channel.in_stderr_buffer = _Received(), _Received()
        # By default paramiko announces more room ten times a window, each time by a packet of its own.
        channel.in_window_threshold = channel.in_window_size // 4

    def recv_stderr(self, size: int) -> bytes:
        return self._received(self._checked(lambda: self._channel.recv_stderr(size)))

    def ready(self, timeout: float) -> tuple[bool, bool]:
        channel = self._channel
        if not self._arrived:
            self._arrived = _Arrived()
            channel.in_buffer.set_event(self._arrived)
            channel.in_stderr_buffer.set_event(self._arrived)
        deadline = time.monotonic() + timeout
        while True:
            self._arrived.event.clear()
            ended = bool(channel.eof_received or channel.closed)
            state = ended or channel.recv_ready(), ended or channel.recv_stderr_ready()
            if any(state) or not self._arrived.event.wait(max(0.0, deadline - time.monotonic())):
                return state

    def wait(self, timeout: float) -> int:
        if not self._channel.status_event.wait(timeout):
            raise TimeoutError("the program did not end in time")
        code = self._channel.exit_status
        if code >= 0:
            return code
        if not self._channel.eof_received:
            raise ConnectionResetError("the SSH connection ended")
        # A signal killed it. paramiko ignores the exit-signal message, so the signal is unknown.
        return 137


class _Arrived(threading.Event):
    """An event that a channel's buffers set when data arrives, and that only `ready` clears.

    paramiko's own `fileno` sometimes loses a wake-up when stdout and stderr arrive together: the reader empties one
    buffer and clears the pipe that the other has just set (seen once in some hundred opened lanes).
    """

    def __init__(self) -> None:
        super().__init__()
        self.event = threading.Event()

    def set(self) -> None:
        self.event.set()

    def clear(self) -> None:
        pass


def open_streamlocal(transport: Transport, path: str, timeout: float) -> paramiko.Channel:
    """Open a channel to the Unix socket at `path` on the server (`direct-streamlocal@openssh.com`).

    paramiko has no such call (https://github.com/paramiko/paramiko/issues/544), so this is its `open_channel` with
    another body. Such a channel does not count for MaxSessions. Raises ChannelException, SSHException, EOFError.
    """
    with transport.lock:
        window = transport._sanitize_window_size(None)
        packet = transport._sanitize_packet_size(None)
        number = transport._next_channel()
        message = paramiko.Message()
        message.add_byte(cMSG_CHANNEL_OPEN)
        message.add_string("direct-streamlocal@openssh.com")
        for value in (number, window, packet):
            message.add_int(value)
        message.add_string(path)
        message.add_string("")
        message.add_int(0)
        channel = paramiko.Channel(number)
        channel.in_buffer = _Received()
        opened = threading.Event()
        transport._channels.put(number, channel)
        transport.channel_events[number] = opened
        transport.channels_seen[number] = True
        channel._set_transport(transport)  # type: ignore[attr-defined]
        channel._set_window(window, packet)  # type: ignore[attr-defined]
    transport._send_user_message(message)
    _await_opening(transport, opened, timeout)
    ready = transport._channels.get(number)
    if ready is None:
        # If the server refuses two at a time, paramiko keeps the answer for only one.
        raise transport.get_exception() or paramiko.ChannelException(2, "Connect failed")
    return ready


def _await_opening(transport: Transport, opened: threading.Event, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        is_over = opened.wait(0.1)
        # Checked also after a wake-up: a transport that ends wakes every opening, but not one that began too late.
        if not transport.is_active():
            raise transport.get_exception() or EOFError("the SSH connection ended")
        if is_over:
            return
        if time.monotonic() > deadline:
            raise TimeoutError("the server opened no channel in time")
