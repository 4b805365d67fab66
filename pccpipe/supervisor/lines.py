"""Connects to the supervisor of a run, and starts it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import sys
import tempfile
import time
from pathlib import Path

from pccpipe.detached.programs import RunDir
from pccpipe.errors import Unavailable
from pccpipe.layout import SUPERVISOR, SUPERVISOR_LOCK
from pccpipe.limits import UNREAD_OUTPUT
from pccpipe.machine.local import LocalMachine, spawn
from pccpipe.outcome import Reason
from pccpipe.supervisor import wire

ANSWER_TIMEOUT = 30.0
"""Seconds in which the supervisor must answer; it has a few files to write."""
BEGIN_TIMEOUT = 15.0
"""Seconds in which a new supervisor must take connections."""
_READ_SIZE = 64 << 10
_LONGEST_ADDRESS = 100
"""Bytes in a socket's path: macOS takes 103."""
_ROOT = str(Path(__file__).resolve().parent.parent)
# It skips the package's own __init__, which imports more than the process needs.
_PROGRAM = (
    "import sys; pccpipe = type(sys)('pccpipe'); pccpipe.__path__ = [sys.argv.pop()]; sys.modules['pccpipe'] = pccpipe;"
    " from pccpipe.supervisor.loop import main; main()"
)


class Line:
    """A connection to a supervisor, for one command after another. Raises ConnectionError once that is gone.

    Args:
        words: a pipe with the stderr of a new supervisor, for the case that Python cannot start it.
    """

    def __init__(self, stream: socket.socket, words: int = -1) -> None:
        self._stream = stream
        self._words = words
        self._inbox = bytearray()
        self._poll = select.poll()
        self._poll.register(stream, select.POLLIN)
        stream.settimeout(ANSWER_TIMEOUT)

    def send(self, *fields: bytes) -> None:
        """Send a message, from any thread. Raises ConnectionError, TimeoutError."""
        try:
            self._stream.sendall(wire.pack(*fields))
        except ConnectionError as error:
            raise ConnectionResetError(self._last_words() or str(error)) from error

    def receive(self, timeout: float) -> list[bytes] | None:
        """Return the next message, or None after `timeout` seconds. Raises ConnectionError."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                if fields := wire.unpack(self._inbox):
                    self._forget_words()
                    return fields
            except ValueError as error:
                raise ConnectionResetError(f"invalid message: {error}") from error
            left = deadline - time.monotonic()
            if not self._poll.poll(max(0.0, left) * 1000):
                return None
            try:
                data = self._stream.recv(_READ_SIZE)
            except ConnectionError:
                data = b""
            if not data:
                raise ConnectionResetError(self._last_words() or "it has ended")
            self._inbox += data

    def ask(self, *fields: bytes) -> list[bytes]:
        """Send a message, and return the answer. Raises ConnectionError, TimeoutError."""
        self.send(*fields)
        answer = self.receive(ANSWER_TIMEOUT)
        if answer is None:
            raise TimeoutError("the supervisor did not answer in time")
        return answer

    def close(self) -> None:
        self._forget_words()
        self._stream.close()

    def _last_words(self) -> str:
        if self._words < 0:
            return ""
        os.set_blocking(self._words, False)
        with contextlib.suppress(OSError):
            return os.read(self._words, _READ_SIZE).decode(errors="replace").strip().rpartition("\n")[2]
        return ""

    def _forget_words(self) -> None:
        words, self._words = self._words, -1
        if words >= 0:
            os.close(words)


def begin(machine: LocalMachine, run_dir: RunDir) -> Line:
    """Start a supervisor in a session of its own. The line works before the supervisor is up. Raises `Unavailable`."""
    if not sys.executable:
        raise Unavailable(Reason.SHELL_MISSING, "localhost: cannot find Python: sys.executable is empty")
    ours, its = socket.socketpair()
    words, its_words = os.pipe()
    try:
        # The folder's name may have bytes that are not text, which `sh` does not take in an argument.
        env = {**machine.environment(), "PCCPIPE_STEP": f"{run_dir.tag}//", "PCCPIPE_STATE": run_dir.state}
        env["PCCPIPE_UNREAD"] = str(UNREAD_OUTPUT.most)
        args = ["-I", "-S", "-c", _PROGRAM, run_dir.run_id, _ROOT]
        spawn(sys.executable, args, env, its.fileno(), its_words, its_words)
    except BaseException:
        ours.close()
        os.close(words)
        raise
    finally:
        its.close()
        os.close(its_words)
    return Line(ours, words)


def connect(state: str) -> Line | None:
    """Connect to the living supervisor of a run; return None if there is none."""
    path = f"{state}/{SUPERVISOR}"
    stream = socket.socket(socket.AF_UNIX)
    stream.settimeout(ANSWER_TIMEOUT)
    try:
        if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
            stream.connect(path)
        else:
            with tempfile.TemporaryDirectory(prefix="pcc-", dir="/tmp") as folder:
                Path(folder, "s").symlink_to(Path(state).absolute())
                stream.connect(f"{folder}/s/{SUPERVISOR}")
    except OSError:
        stream.close()
        return None
    return Line(stream)


def is_alive(state: str) -> bool:
    """Return whether a supervisor of the run is alive: it holds a lock, which the kernel releases at its end."""
    try:
        lock = os.open(f"{state}/{SUPERVISOR_LOCK}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(lock)
    return False
