"""A machine as its users see it: this one, or the project's VM through the run's one connection.

The targets, the engine's API and the workspace's sync are all written against `Machine`, so that each works the same on
both. `pccpipe.ssh.connection.Connection` is the VM; `pccpipe.machine.local.Here` is this machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from pccpipe.errors import Unavailable, UsageError
from pccpipe.outcome import Reason

MAKE_ROOM = "pccpipe gc (it lists what earlier runs left there with its size, and removes it)"


class ByteStream(Protocol):
    """A connected byte stream, as a socket is one: an engine's API call, or a program's stdin and stdout."""

    def fileno(self) -> int:
        """A descriptor that polls readable when `recv` would not block."""
        ...

    def recv(self, size: int) -> bytes:
        """At most `size` bytes; empty at the end. Blocks at most for the stream's timeout (raises TimeoutError)."""
        ...

    def sendall(self, data: bytes) -> None: ...

    def settimeout(self, seconds: float | None) -> None: ...

    def shutdown_write(self) -> None:
        """Say that no more will be sent; receiving goes on."""
        ...

    def close(self) -> None: ...


class Process(ByteStream, Protocol):
    """A program with its streams: sendall and recv are its stdin and stdout."""

    def recv_stderr(self, size: int) -> bytes: ...

    def ready(self, timeout: float) -> tuple[bool, bool]:
        """Whether (stdout, stderr) can be read without blocking, after waiting for at most `timeout` seconds."""
        ...

    def wait(self, timeout: float) -> int:
        """Its exit code, once stdout and stderr have ended. Raises TimeoutError."""
        ...


class Done(Struct, frozen=True):
    """A finished housekeeping command."""

    code: int
    stdout: bytes
    stderr: bytes


class Facts(Struct, frozen=True):
    """What a machine says of itself, asked once."""

    uid: int
    gid: int
    user: str
    home: str
    system: str
    """`uname -s`."""
    has_engine: bool
    """Whether its user may use an engine's socket there."""
    engine_socket: str = "/var/run/docker.sock"
    kernel: str = ""
    """`uname -r`, of the controller only: an engine with another one runs in a VM of its own."""
    engine_words: str = ""
    """How that was found, or where it was looked for."""
    engine_error: UsageError | None = None
    """Why no engine there can be used: what the user's settings name is none of its sockets."""


class Machine(Protocol):
    """Raises `Unavailable` from every call while the machine can't be had, and `ConnectionError` when it goes away
    mid-call.
    """

    @property
    def host(self) -> str:
        """`localhost`, or the VM's address."""
        ...

    @property
    def facts(self) -> Facts: ...

    def popen(self, command: str) -> Process:
        """Start a shell command line; its streams stay open until `close`."""
        ...

    def run(self, script: str, timeout: float = 60.0) -> Done:
        """Run a housekeeping script with sh to its end; it travels on stdin, never as an argument. Raises
        TimeoutError.
        """
        ...

    def dial(self, path: str, timeout: float = 10.0) -> ByteStream:
        """Connect to the Unix socket at `path` there.

        Only engines are reached so, hence their reasons in `Unavailable`: ENGINE_MISSING without a socket,
        ENGINE_STOPPED when nobody listens on it, ENGINE_PERMISSION_DENIED, ENGINE_NOT_ANSWERING.
        """
        ...


class Listener(Protocol):
    """Where connections are taken."""

    @property
    def port(self) -> int:
        """0 for a Unix socket."""
        ...

    def close(self) -> None:
        """Take no more. Idempotent; never raises."""
        ...


class Listens(Protocol):
    """A machine whose programs can connect to this process, also again after its connection was lost.

    `accept` gets each connection, and returns at once. Raises `Unavailable` with PROXY_REFUSED, or while the machine
    can't be had.
    """

    def serve_socket(self, path: str, accept: Callable[[ByteStream], None], *, open_to_all: bool = False) -> Listener:
        """Take connections at a Unix socket there, in a folder that is there; a socket that is there gives way.

        `open_to_all`: also from other users there, as far as they reach the folder.
        """
        ...

    def serve_port(self, port: int, accept: Callable[[ByteStream], None]) -> Listener:
        """Take connections at a port of 127.0.0.1 there; at a free one if it is 0."""
        ...


class ProxyDoor(Struct, frozen=True):
    """How a machine's programs come to a service of this process."""

    serving: Listens
    accept: Callable[[ByteStream], None]


def left_there(host: str, what: str, why: str, fix: str) -> str:
    """What could not be removed there, in words."""
    return f"{host}: {what} could not be removed{f': {why}' if why else ''}; fix: {fix}"


def is_full(words: str) -> bool:
    """Whether a program says, in the C locale, that the disk is full."""
    # The last is all that GNU tar says if there was room for a part of what it wrote.
    return any(told in words for told in ("No space left on device", "Disk quota exceeded", "Wrote only "))


def refused(host: str, words: str) -> Unavailable:
    """Why a folder there can't be made or written, by the words of the program that tried."""
    if is_full(words):
        return Unavailable(Reason.NO_DISK_SPACE, f"{host}: {words}", MAKE_ROOM)
    return Unavailable(Reason.WORKSPACE_REFUSED, f"{host}: {words}")
