"""Runs the commands of a run on this machine; they keep running without pccpipe."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import threading
import time
from pathlib import Path

from pccpipe.detached.programs import KILL_AFTER, RunDir, environment
from pccpipe.detached.slots import Slots
from pccpipe.errors import Lost, Refused, Unavailable
from pccpipe.machine.base import cannot_write, left_there
from pccpipe.machine.local import LocalMachine
from pccpipe.machine.retry import DISCONNECTED
from pccpipe.outcome import Reason
from pccpipe.search_path import resolved
from pccpipe.shells import dialect_of
from pccpipe.supervisor.files import HOST, Files
from pccpipe.supervisor.lines import BEGIN_TIMEOUT, Line, begin, connect, is_alive
from pccpipe.supervisor.running import SupervisedRunning
from pccpipe.target import Command, Isolation, Token

_ATTEMPTS = 3
"""How often it asks for a command, if its supervisor is gone each time."""
_END_TIMEOUT = 10.0
"""Seconds in which a supervisor must end after the request."""
_NOT_INHERITED = ("PCC_IN", "PCC_OUT", "PCC_ENV", "OLDPWD")


class Supervised:
    """The commands of a run on this machine. Thread-safe.

    Args:
        limit: how many commands may run at a time; further ones wait.
        kill_after: seconds between TERM and KILL at the command's own time limit.
    """

    def __init__(self, machine: LocalMachine, run_dir: RunDir, *, limit: int, kill_after: float = KILL_AFTER) -> None:
        self._machine = machine
        self._run_dir = run_dir
        self._files = Files(run_dir)
        self._slots = Slots[Line](HOST, limit)
        self._kill_after = kill_after
        self._lock = threading.Lock()
        self._begin_lock = threading.Lock()
        self._holder = b""
        self._coming = False
        """True while a new supervisor has not answered yet."""
        self._was_used = self._took_over = self._is_open = False

    def open(self) -> None:
        """Make sure that commands can run. Raises `Unavailable`."""
        self._slots.check_open()
        if self._is_open:
            return
        self._was_used = True
        self._files.make()
        # It does not wait for the supervisor, which starts while pccpipe writes the record.
        self._slots.keep(self._line())
        self._is_open = True

    def take_over(self) -> None:
        """Make `close` also remove what another process of the run left here."""
        self._was_used = self._took_over = True

    def start(self, command: Command, workspace: str, isolation: Isolation) -> SupervisedRunning:
        """Begin a command in a workspace. Raises `Unavailable`, `Refused`, but only if it certainly never began."""
        order = self._order(command, workspace)
        self._slots.take(command.limit)
        try:
            self.open()
            self._files.write(command)
            for _ in range(_ATTEMPTS):
                mark = secrets.token_hex(16)
                line = self._line()
                try:
                    answer = line.ask(b"begin", os.fsencode(command.id), mark.encode(), self._held(), *order)
                except DISCONNECTED as error:
                    line.close()
                    self._coming = False
                    words = str(error)
                    if not self._files.void(command.id, mark):
                        return self._running(command.id, mark, isolation, self._followed(command.id))
                    self._forget_idle()
                else:
                    self._understand(answer, line)
                    return self._running(command.id, mark, isolation, line)
            raise Unavailable(Reason.START_REFUSED, f"{HOST}: the supervisor of local steps failed: {words}")
        except BaseException:
            self._files.remove(command.id)
            self._give_back(None)
            raise

    def find(self, command_id: str, isolation: Isolation) -> SupervisedRunning | None:
        """Find a command that another process of the run began without recording it. Raises `Unavailable`."""
        self.open()
        # From now on the supervisor begins no command of that process.
        self._held()
        mark = self._files.find(command_id)
        return self.attach({"id": command_id, "mark": mark}, isolation) if mark else None

    def attach(self, token: Token, isolation: Isolation) -> SupervisedRunning:
        """Follow a command that began earlier, from its first byte. Raises `Unavailable`, `Lost`."""
        match token:
            case {"id": str(command_id), "mark": str(mark)}:
                pass
            case _:
                raise Lost(f"the record does not say where the command runs: {token}")
        self.take_over()
        self._slots.check_open()
        line = None if self._files.ended(command_id) else self._followed(command_id)
        self._slots.adopt()
        return self._running(command_id, mark, isolation, line)

    def leave(self) -> bool:
        """Close what this process has open, and leave the rest. Return False if that was done before."""
        return self._slots.close()

    def close(self) -> tuple[str, ...]:
        """Remove everything of the run from this machine; return words on what is left. Idempotent; never raises."""
        line = self._slots.idle()
        if not self.leave() or not self._was_used:
            return ()
        line = line or connect(self._run_dir.state)
        is_clean = line is not None and _end(line)
        if line:
            line.close()
        if self._took_over or not is_clean:
            self._files.end_all()
        words = self._files.remove_all()
        if not words:
            return ()
        folder = self._run_dir.state
        return (left_there(HOST, f"the folder {folder}", words, f"rm -rf {shlex.quote(folder)}"),)

    def _give_back(self, line: Line | None) -> None:
        if line:
            self._slots.keep(line)
        self._slots.free()

    def _line(self) -> Line:
        """Return a line to the run's supervisor, and start one if there is none. Raises `Unavailable`."""
        if idle := self._slots.idle():
            return idle
        state = self._run_dir.state
        with self._begin_lock:
            until = time.monotonic() + BEGIN_TIMEOUT
            while True:
                if line := connect(state):
                    self._coming = False
                    return line
                if not self._coming and not is_alive(state):
                    self._coming = True
                    return begin(self._machine, self._run_dir)
                if time.monotonic() > until:
                    self._coming = False
                    raise Unavailable(Reason.START_REFUSED, f"{HOST}: the supervisor of local steps does not answer")
                time.sleep(0.002)

    def _followed(self, command_id: str) -> Line | None:
        """Open a line that follows a command; return None if its supervisor is gone, or does not know it."""
        state, until = self._run_dir.state, time.monotonic() + BEGIN_TIMEOUT
        while True:
            line = connect(state)
            if line is None and is_alive(state) and time.monotonic() < until:
                time.sleep(0.02)
                continue
            with contextlib.suppress(*DISCONNECTED):
                if line and line.ask(b"follow", os.fsencode(command_id)) == [b"known"]:
                    return line
            if line:
                line.close()
            return None

    def _forget_idle(self) -> None:
        """Close the idle lines: the supervisor is gone, or does not answer."""
        while line := self._slots.idle():
            line.close()

    def _held(self) -> bytes:
        with self._lock:
            self._holder = self._holder or self._files.hold()
            return self._holder

    def _running(self, command_id: str, mark: str, isolation: Isolation, line: Line | None) -> SupervisedRunning:
        return SupervisedRunning(self._files, command_id, mark, isolation, line, self._followed, self._give_back)

    def _understand(self, answer: list[bytes], line: Line) -> None:
        """Read the answer to a request to begin. Raises `Unavailable` if the command did not begin; keeps the line."""
        self._coming = False
        if answer == [b"begun"]:
            return
        self._slots.keep(line)
        kind, words = (*answer[1:], b"", b"")[:2]
        text = words.decode(errors="replace")
        if kind == b"files":
            raise cannot_write(HOST, text)
        raise Unavailable(Reason.START_REFUSED, f"{HOST}: {text or 'the supervisor of local steps refused it'}")

    def _order(self, command: Command, workspace: str) -> list[bytes]:
        """Write the request for a command. Raises `Refused` for values that no program can take."""
        folder = workspace if command.cwd in ("", ".") else f"{workspace}/{command.cwd}"
        inherited = self._machine.environment()
        given = dict(environment(self._run_dir, command, workspace))
        own_path = inherited.get("PATH", os.defpath)
        if "PATH" in given:
            given["PATH"] = resolved(given["PATH"], workspace, own_path)
        shell, *options = command.shell.split(" ")
        # The command's own PATH may not have its shell, but it has any other interpreter.
        found = shutil.which(shell, path=own_path if dialect_of(shell) else given.get("PATH", own_path))
        if "/" not in shell and found:
            shell = str(Path(found).absolute())
        argv = [shell, *options, self._files.of(command.id, "sh")]
        for name in _NOT_INHERITED:
            inherited.pop(name, None)
        env = {os.fsencode(name): os.fsencode(value) for name, value in {**inherited, "PWD": folder}.items()}
        env |= {_encoded(name): _encoded(value) for name, value in given.items()}
        if "\0" in f"{command.script}{command.shell}{folder}" or any(b"\0" in value for value in env.values()):
            raise Refused("a NUL byte in its script or environment: no shell can take that")
        return [
            *(b"%f" % command.limit, b"%f" % self._kill_after),
            *(_encoded(folder), f"PCCPIPE_STEP={given['PCCPIPE_STEP']}".encode()),
            b"\0".join(map(_encoded, argv)),
            b"\0".join(b"=".join(variable) for variable in env.items()),
        ]


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def end_supervisor(state: str) -> None:
    """End the supervisor of a run in this folder, and its commands."""
    if line := connect(state):
        with contextlib.closing(line):
            _end(line)


def _end(line: Line) -> bool:
    """End a supervisor; return whether it ended no command."""
    try:
        is_clean = line.ask(b"end") == [b"ended", b"0"]
        line.receive(_END_TIMEOUT)
    except DISCONNECTED:
        return False
    return is_clean
