"""Runs programs on this machine, with the `sh` library and pipes of our own.

The pipes are our own because callbacks of `sh` hold output back, or cut it into single bytes, and swallow exceptions.
Programs have a session of their own, so that a Ctrl-C at our terminal does not reach them.
"""

from __future__ import annotations

import functools
import os
import pwd
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pccpipe.errors import Unavailable, UsageError
from pccpipe.machine.base import ByteStream, Done, Facts, Listener, Process
from pccpipe.machine.local_engine import find_local_engine, is_engine_at_hand
from pccpipe.machine.local_stream import LocalStream
from pccpipe.machine.script import run_script
from pccpipe.outcome import Reason

if TYPE_CHECKING:
    import sh


_GIT = frozenset(
    f"GIT_{name}"
    for name in (
        # The names of `git rev-parse --local-env-vars`, and the others that a hook of git has.
        *("DIR", "WORK_TREE", "INDEX_FILE", "COMMON_DIR", "OBJECT_DIRECTORY", "ALTERNATE_OBJECT_DIRECTORIES"),
        *("PREFIX", "NAMESPACE", "IMPLICIT_WORK_TREE", "INTERNAL_SUPER_PREFIX", "QUARANTINE_PATH", "SHALLOW_FILE"),
        *("GRAFT_FILE", "NO_REPLACE_OBJECTS", "REPLACE_REF_BASE", "CONFIG", "CONFIG_PARAMETERS"),
        "DISCOVERY_ACROSS_FILESYSTEM",
    )
)
"""Variables that lead git to the caller's repository, wherever it runs."""


class LocalMachine:
    """The machine on which pccpipe runs.

    Args:
        withheld: names of environment variables that no program started here inherits.
    """

    def __init__(self, withheld: frozenset[str] = frozenset()) -> None:
        self._withheld = withheld

    @property
    def host(self) -> str:
        return "localhost"

    @functools.cached_property
    def facts(self) -> Facts:
        uid = os.getuid()
        try:
            user = pwd.getpwuid(uid).pw_name
        except KeyError:
            user = str(uid)
        system = os.uname()
        facts = Facts(
            uid, os.getgid(), user, str(Path.home()), system.sysname, is_engine_at_hand(), kernel=system.release
        )
        try:
            engine = find_local_engine()
        except UsageError as error:
            return replace(facts, engine_error=error)
        return replace(facts, engine_socket=engine.socket, engine_words=engine.words)

    def popen(self, command: str) -> Process:
        return LocalProcess(command, self.environment())

    def environment(self) -> dict[str, str]:
        """Return the environment of programs here, without withheld variables and without those that move git."""
        env = {name: value for name, value in os.environ.items() if name not in self._withheld | _GIT}
        # The caller may configure git by `GIT_CONFIG_COUNT`, as for a login, but may not move a work tree.
        keys = [value.lower() for name, value in env.items() if name.startswith("GIT_CONFIG_KEY_")]
        if "core.worktree" in keys:
            env.pop("GIT_CONFIG_COUNT", None)
        return env

    def run(self, script: str, timeout: float = 60.0) -> Done:
        return run_script(self.popen("exec sh"), script, timeout)

    def dial(self, path: str, timeout: float = 10.0) -> ByteStream:
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.settimeout(timeout)
        try:
            stream.connect(path)
        except OSError as error:
            stream.close()
            raise Unavailable(_reason(error), f"connect to {path}: {error.strerror or error}") from error
        return LocalStream(stream)

    def serve_socket(self, path: str, accept: Callable[[ByteStream], None], *, open_to_all: bool = False) -> Listener:
        from pccpipe.machine.listening import listen_at

        served = listen_at(path, accept)
        if open_to_all:
            Path(path).chmod(0o666)
        return served

    def serve_port(self, port: int, accept: Callable[[ByteStream], None]) -> Listener:
        from pccpipe.machine.listening import listen_on

        return listen_on(port, accept)


def _reason(error: OSError) -> Reason:
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return Reason.ENGINE_MISSING
        case PermissionError():
            return Reason.ENGINE_PERMISSION_DENIED
        case ConnectionRefusedError():
            return Reason.ENGINE_STOPPED
        case TimeoutError() | BlockingIOError():
            return Reason.ENGINE_NOT_ANSWERING
        case _:
            return Reason.ENGINE_ERROR


class LocalProcess:
    """A shell command line that runs here, in a session of its own. `close` closes its streams, and does not end it."""

    def __init__(self, command: str, env: Mapping[str, str]) -> None:
        stdin, self._stdin = os.pipe()
        self._stdout, stdout = os.pipe()
        self._stderr, stderr = os.pipe()
        self._timeout: float | None = None
        try:
            self._running = spawn("sh", ["-c", command], env, stdin, stdout, stderr)
        except BaseException:
            self.close()
            raise
        finally:
            for fd in (stdin, stdout, stderr):
                os.close(fd)
        os.set_blocking(self._stdin, False)

    def fileno(self) -> int:
        return self._stdout

    def recv(self, size: int) -> bytes:
        return self._read(self._stdout, size)

    def recv_stderr(self, size: int) -> bytes:
        return self._read(self._stderr, size)

    def ready(self, timeout: float) -> tuple[bool, bool]:
        events = _poll({self._stdout: select.POLLIN, self._stderr: select.POLLIN}, timeout)
        return self._stdout in events, self._stderr in events

    def sendall(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._stdin, left) :]
            except BlockingIOError:
                if not _poll({self._stdin: select.POLLOUT}, self._timeout):
                    raise TimeoutError("the program did not take its input in time") from None

    def settimeout(self, seconds: float | None) -> None:
        self._timeout = seconds

    def shutdown_write(self) -> None:
        # Reset before the close, because another thread may do the same.
        stdin, self._stdin = self._stdin, -1
        if stdin >= 0:
            os.close(stdin)

    def wait(self, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        pause = 0.0005
        while self._running.process.is_alive()[0]:
            if time.monotonic() > deadline:
                raise TimeoutError("the program did not end in time")
            time.sleep(pause)
            pause = min(pause * 2, 0.05)
        code = self._running.process.exit_code
        assert code is not None
        return code if code >= 0 else 128 - code

    def close(self) -> None:
        self.shutdown_write()
        for fd in (self._stdout, self._stderr):
            if fd >= 0:
                os.close(fd)
        self._stdout = self._stderr = -1

    def _read(self, fd: int, size: int) -> bytes:
        if self._timeout is not None and not _poll({fd: select.POLLIN}, self._timeout):
            raise TimeoutError("the program wrote nothing in time")
        return os.read(fd, size)


def spawn(
    program: str, args: Sequence[str], env: Mapping[str, str], stdin: int, stdout: int, stderr: int
) -> sh.RunningCommand:
    """Start a program with these descriptors, in a session of its own. Raises `Unavailable`."""
    import sh

    try:
        with open(stdin, "rb", closefd=False) as source:
            return sh.Command(program)(
                *args,
                _in=source,
                _out=stdout,
                _err=stderr,
                _env=dict(env),
                _tty_out=False,
                _new_session=True,
                _preexec_fn=_default_signals,
                _bg=True,
                _bg_exc=False,
            )
    except sh.CommandNotFound as error:
        words = f"this user cannot run {program}" if "/" in program else f"{program} is not in PATH on this machine"
        raise Unavailable(Reason.SHELL_MISSING, words) from error
    except (sh.ForkException, OSError) as error:
        # The text of a ForkException is a whole traceback of the child.
        words = str(error).strip().rpartition("\n")[2].strip()
        raise Unavailable(Reason.START_REFUSED, f"cannot start a program on this machine: {words}") from error


def _default_signals() -> None:
    """Reset, in the child, the signals that Python and `sh` ignore: users' programs do not expect that."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)


def _poll(wanted: Mapping[int, int], timeout: float | None) -> set[int]:
    poller = select.poll()
    for fd, events in wanted.items():
        poller.register(fd, events)
    return {fd for fd, _ in poller.poll(None if timeout is None else max(0.0, timeout) * 1000)}
