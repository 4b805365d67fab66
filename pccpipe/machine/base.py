"""A machine as something that runs programs and opens connections: this computer, or the project's VM.

The targets, the engine's API and the sync of the workspace use `Machine`, so that each works the same on both.
`pccpipe.ssh.connection.Connection` is the VM, `pccpipe.machine.local.LocalMachine` is this computer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from pccpipe.errors import Unavailable, UsageError
from pccpipe.outcome import Reason

MAKE_ROOM = "pccpipe gc (lists what earlier runs left there, with sizes, and removes it)"


class ByteStream(Protocol):
    """A connected byte stream, like a socket: an API call of an engine, or the stdin and stdout of a program."""

    def fileno(self) -> int:
        """Return a descriptor that polls readable when `recv` would not block."""
        ...

    def recv(self, size: int) -> bytes:
        """Receive at most `size` bytes, or none at the end. Raises TimeoutError after the stream's timeout."""
        ...

    def sendall(self, data: bytes) -> None: ...

    def settimeout(self, seconds: float | None) -> None: ...

    def shutdown_write(self) -> None:
        """End the output; the stream still receives."""
        ...

    def close(self) -> None: ...


class Process(ByteStream, Protocol):
    """A program with its streams: sendall and recv are its stdin and stdout."""

    def recv_stderr(self, size: int) -> bytes: ...

    def ready(self, timeout: float) -> tuple[bool, bool]:
        """Wait up to `timeout` seconds; return whether stdout and whether stderr can be read without blocking."""
        ...

    def wait(self, timeout: float) -> int:
        """Return the exit code, once stdout and stderr have ended. Raises TimeoutError."""
        ...


class Done(Struct, frozen=True):
    """The result of a housekeeping script."""

    code: int
    stdout: bytes
    stderr: bytes


class Facts(Struct, frozen=True):
    """The facts about a machine that pccpipe asks it for once."""

    uid: int
    gid: int
    user: str
    home: str
    system: str
    """`uname -s`."""
    has_engine: bool
    """True if its user may use an engine's socket there."""
    engine_socket: str = "/var/run/docker.sock"
    kernel: str = ""
    """`uname -r`, of the controller only: an engine with another kernel runs in a VM of its own."""
    engine_words: str = ""
    """How the socket was found, or where it was searched, in words."""
    engine_error: UsageError | None = None
    """The reason why no engine there can be used: the user's settings do not name one of its sockets."""


class Machine(Protocol):
    """A machine. Every call raises `Unavailable` while it is unreachable, ConnectionError if it goes away in a call."""

    @property
    def host(self) -> str:
        """`localhost`, or the VM's address."""
        ...

    @property
    def facts(self) -> Facts: ...

    def popen(self, command: str) -> Process:
        """Start a shell command line. Its streams stay open until `close`."""
        ...

    def run(self, script: str, timeout: float = 60.0) -> Done:
        """Run a housekeeping script with sh to its end. Raises TimeoutError.

        The script goes through stdin, so it appears in no list of processes.
        """
        ...

    def dial(self, path: str, timeout: float = 10.0) -> ByteStream:
        """Connect to the Unix socket at `path` there.

        Only engines are reached this way, so `Unavailable` has their reasons: ENGINE_MISSING without a socket,
        ENGINE_STOPPED if no process listens on it, ENGINE_PERMISSION_DENIED, ENGINE_NOT_ANSWERING.
        """
        ...


class Listener(Protocol):
    """A socket or port that takes connections."""

    @property
    def port(self) -> int:
        """The port's number; 0 for a Unix socket."""
        ...

    def close(self) -> None:
        """Take no more connections. Idempotent; never raises."""
        ...


class ListeningMachine(Protocol):
    """A machine whose programs can connect to this process, also after pccpipe reconnected to the machine.

    `accept` gets each connection, and returns at once. Both calls raise `Unavailable`, with PROXY_REFUSED if the
    machine refuses.
    """

    def serve_socket(self, path: str, accept: Callable[[ByteStream], None], *, open_to_all: bool = False) -> Listener:
        """Take connections at a Unix socket there, in a folder that exists. It replaces an existing socket.

        `open_to_all`: also from other users there who reach the folder.
        """
        ...

    def serve_port(self, port: int, accept: Callable[[ByteStream], None]) -> Listener:
        """Take connections at a port of 127.0.0.1 there, or at a free one for 0."""
        ...


class ProxyRoute(Struct, frozen=True):
    """The way from programs on a machine to a service of this process."""

    machine: ListeningMachine
    accept: Callable[[ByteStream], None]


def left_there(host: str, what: str, why: str, fix: str) -> str:
    """Report that something could not be removed there."""
    return f"{host}: {what} could not be removed{f': {why}' if why else ''}; fix: {fix}"


def is_full(words: str) -> bool:
    """Return whether a program says, in the C locale, that the disk is full."""
    # GNU tar says only the last one if there was room for a part of its output.
    return any(phrase in words for phrase in ("No space left on device", "Disk quota exceeded", "Wrote only "))


def cannot_write(host: str, words: str) -> Unavailable:
    """Make the error for a folder there that can't be made or written, from the words of the program that tried."""
    if is_full(words):
        return Unavailable(Reason.NO_DISK_SPACE, f"{host}: {words}", MAKE_ROOM)
    return Unavailable(Reason.WORKSPACE_REFUSED, f"{host}: {words}")
