"""Runs in the supervisor's process: begins commands, keeps their output, and reports how they ended.

Its first connection is its stdin. Further ones come to the socket `supervisor` in the run's folder. Requests, and their
answers:

    begin ID MARK HOLDER LIMIT KILL_AFTER FOLDER TAG ARGV ENV    `begun` and `state`, or `refused KIND WORDS`
    follow ID                                                    `known` and `state`, or `unknown`
    stop ID GRACE                                                nothing
    read OUT ERR                                                 nothing
    end                                                          `ended COUNT`, the commands that end with this process

`read` says how much of the followed command's output waits for no reader any more. If more than PCCPIPE_UNREAD bytes
wait, the supervisor stops reading the pipe. So a command whose pccpipe is gone does not fill the disk.

ARGV and ENV are words with a NUL between them. `state OUT ERR SAID` has the sizes of the two spools, and `-` or how the
command ended. The supervisor sends it whenever that changes. The process ends by itself when no command and no
connection is left. It holds a lock on the file `supervisor.lock` while it is alive.
"""

from __future__ import annotations

# `signal` and `socket` would load enum and selectors, which takes as long as the rest of this process's start.
import _signal as signal  # type: ignore[import-not-found]
import _socket as socket
import errno
import fcntl
import os
import select
import sys
import time

from pccpipe.layout import SUPERVISOR, SUPERVISOR_LOCK
from pccpipe.supervisor import wire
from pccpipe.supervisor.spool import Spool
from pccpipe.supervisor.work import NotBegun, Order, Work

_RECEIVED = 256 << 10
"""Bytes that it receives at a time."""
_BACKLOG = 64
_LONGEST_PAUSE = 3600.0
_LOCK_TIMEOUT = 10.0
"""Seconds to wait for the end of the run's last supervisor."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Client:
    """A connection of pccpipe, and the command that it follows."""

    def __init__(self, stream: socket.socket) -> None:
        stream.setblocking(False)
        self.stream = stream
        self.number = stream.fileno()
        self.inbox = bytearray()
        self.work: Work | None = None
        self.waits = False
        """True while the loop waits until it takes more."""
        self._outbox = b""
        self._reported: tuple[int, int, bytes] | None = None

    @property
    def is_full(self) -> bool:
        """True while the reader does not take the output."""
        return bool(self._outbox)

    def follow(self, work: Work | None) -> None:
        self.work, self._reported = work, None

    def say(self, *fields: bytes) -> None:
        self._outbox += wire.pack(*fields)
        self.flush()

    def report(self) -> None:
        """Send the command's state. A slow reader gets only the newest one."""
        if self.work is None or self._outbox or self.work.state == self._reported:
            return
        self._reported = out, err, said = self.work.state
        if said != b"-":
            self.work = None
        self.say(b"state", b"%d" % out, b"%d" % err, said)

    def flush(self) -> None:
        try:
            sent = self.stream.send(self._outbox)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._outbox)  # the reader is gone, and the next `recv` shows that
        self._outbox = self._outbox[sent:]


class Supervisor:
    """The supervisor of one run.

    Args:
        server: takes further connections.
        umask: the umask of commands.
        most_unread: bytes of a stream's output that may wait for a reader.
    """

    def __init__(self, first: socket.socket, server: socket.socket, umask: int, most_unread: int) -> None:
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._connections: dict[int, Client] = {}
        self._works: dict[str, Work] = {}
        self._server = server
        self._umask, self._most_unread = umask, most_unread
        self._home = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._own = _identity()
        self._ends = False
        server.setblocking(False)
        self._handle(server.fileno(), self._accept)
        self._wakeup, wakeup = os.pipe()
        for number in (self._wakeup, wakeup):
            os.set_blocking(number, False)
        self._handle(self._wakeup, self._reap)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._join(first)

    def run(self) -> None:
        pause = 0.0
        while (self._connections or self._works) and not self._ends:
            for number, events in self._poll.poll(min(pause, _LONGEST_PAUSE) * 1000 + 1):
                connection = self._connections.get(number)
                if connection and events & select.POLLOUT:
                    connection.flush()
                if number in self._handlers and events & ~select.POLLOUT:
                    self._handlers[number]()
            pause = self._advance()

    def _advance(self) -> float:
        """Do the due work of each command, and report to its followers; return the seconds until the next call."""
        now, pause = time.monotonic(), float("inf")
        for work in list(self._works.values()):
            for spool in work.spools:
                if spool.is_held:
                    spool.read()
            pause = min(pause, work.tick(now))
            self._watch(work)
            if work.over:
                del self._works[work.id]
        for connection in self._connections.values():
            connection.report()
            if connection.is_full != connection.waits:
                connection.waits = connection.is_full
                self._poll.register(connection.number, select.POLLIN | (select.POLLOUT if connection.waits else 0))
        return pause

    def _handle(self, number: int, handler: Callable[[], None]) -> None:
        self._handlers[number] = handler
        self._poll.register(number, select.POLLIN)

    def _forget(self, number: int) -> None:
        if self._handlers.pop(number, None):
            self._poll.unregister(number)

    def _watch(self, work: Work) -> None:
        """Poll for the command's output, while the disk has room for it, and the reader keeps up."""
        for spool in work.spools:
            if not spool.is_open or spool.is_held or spool.is_ahead:
                if spool.is_watched:
                    self._forget(spool.number)
                spool.is_watched = False
            elif not spool.is_watched:
                spool.is_watched = True
                self._handle(spool.number, self._reader(work, spool))

    def _reader(self, work: Work, spool: Spool) -> Callable[[], None]:
        def read() -> None:
            spool.read()
            self._watch(work)

        return read

    def _accept(self) -> None:
        try:
            number, _ = self._server._accept()  # type: ignore[attr-defined]
        except BlockingIOError:
            return
        except OSError:
            time.sleep(0.02)  # no descriptor is free, and poll reports the connection again at once
            return
        self._join(socket.socket(fileno=number))

    def _join(self, stream: socket.socket) -> None:
        connection = Client(stream)
        self._connections[connection.number] = connection
        self._handle(connection.number, lambda: self._receive(connection))

    def _leave(self, connection: Client) -> None:
        self._forget(connection.number)
        del self._connections[connection.number]
        connection.stream.close()

    def _receive(self, connection: Client) -> None:
        try:
            data = connection.stream.recv(_RECEIVED)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        connection.inbox += data
        try:
            while fields := wire.unpack(connection.inbox):
                self._answer(connection, fields)
        except (ValueError, KeyError):
            data = b""  # it does not speak this protocol
        if not data:
            self._leave(connection)

    def _answer(self, connection: Client, fields: list[bytes]) -> None:
        match fields:
            case [b"begin", *order]:
                self._begin(connection, Order(order))
            case [b"follow", number]:
                work = self._works.get(os.fsdecode(number))
                connection.follow(work)
                connection.say(b"known" if work else b"unknown")
            case [b"stop", number, grace]:
                if work := self._works.get(os.fsdecode(number)):
                    work.stop(float(grace), time.monotonic())
            case [b"read", out, err]:
                if work := connection.work:
                    work.out.was_read(int(out))
                    work.err.was_read(int(err))
            case [b"end"]:
                connection.say(b"ended", b"%d" % len(self._works))
                self._end()
            case _:
                raise ValueError(fields[:1])

    def _begin(self, connection: Client, order: Order) -> None:
        argv = order.argv.split(b"\0")
        variables = dict(variable.split(b"=", 1) for variable in order.env.split(b"\0"))
        try:
            work = Work(order, argv, variables, self._own, self._home, self._umask, self._most_unread, time.monotonic())
        except NotBegun as error:
            connection.say(b"refused", error.kind, os.fsencode(str(error)))
            return
        self._works[work.id] = work
        self._watch(work)
        connection.follow(work)
        connection.say(b"begun")

    def _reap(self) -> None:
        try:
            while os.read(self._wakeup, 4096):
                pass
        except BlockingIOError:
            pass
        now = time.monotonic()
        for work in self._works.values():
            if work.code is None:
                pid, status = os.waitpid(work.pid, os.WNOHANG)
                if pid:
                    work.reaped(status, now)

    def _end(self) -> None:
        for work in self._works.values():
            work.kill()
        self._ends = True


def _identity() -> bytes:
    """Name this process, so that a shell script with /proc can find out whether it is alive: PID, start time, boot."""
    try:
        with open("/proc/self/stat", "rb") as file:
            start = file.read().rpartition(b") ")[2].split()[19]
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return b"%d %s %s\n" % (os.getpid(), start, file.read().strip())
    except (OSError, IndexError):
        return b"%d 0 -\n" % os.getpid()


def _lock() -> None:
    """Take the lock. Raises OSError if another supervisor of the run stays alive."""
    lock = os.open(SUPERVISOR_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + _LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


def _listen() -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    new = f"{SUPERVISOR}.{os.getpid()}"
    # Its name alone, because the whole path may be too long for a socket's address.
    server.bind(new)
    server.listen(_BACKLOG)
    os.rename(new, SUPERVISOR)
    return server


def _let_go() -> None:
    """Close the descriptors of the process that started this one, except the connection."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for number in (0, 1, 2):
        os.dup2(null, number)


def main() -> None:
    """Serve the run whose folder PCCPIPE_STATE names; stdin is the first connection."""
    umask = os.umask(0o077)
    # The caller of pccpipe may block signals, such as SIGCHLD.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.chdir(os.environb[b"PCCPIPE_STATE"])
        # An older pccpipe, under which this file was replaced, never says how much it read.
        most_unread = int(os.environb.get(b"PCCPIPE_UNREAD", sys.maxsize))
        _lock()
        server = _listen()
    except OSError as error:
        words = "another supervisor of the run does not end" if error.errno == errno.EAGAIN else str(error)
        sys.exit(f"pccpipe's supervisor: {words}")
    first = socket.socket(fileno=os.dup(0))
    _let_go()
    try:
        Supervisor(first, server, umask, most_unread).run()
    finally:
        try:
            os.unlink(SUPERVISOR)
        except OSError:
            pass
