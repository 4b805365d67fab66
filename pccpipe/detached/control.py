"""Ends, checks and removes commands, through an sh beside the lanes that takes short programs only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from pccpipe.detached import programs
from pccpipe.detached.lane import LaneShell, new_mark, understood
from pccpipe.detached.programs import RunDir
from pccpipe.errors import Unavailable
from pccpipe.machine.base import Machine
from pccpipe.machine.retry import DISCONNECTED, reconnecting, repeating
from pccpipe.outcome import Reason

T = TypeVar("T")


class Control:
    """The control lane of a run. It opens at its first use, and again after it broke. Thread-safe."""

    def __init__(self, machine: Machine, run_dir: RunDir) -> None:
        self._machine = machine
        self._run_dir = run_dir
        self._lock = threading.Lock()
        self._shell: LaneShell | None = None
        self._closed = False
        self.was_opened = False
        """True if the machine may have something of the run."""

    def open(self) -> None:
        """Open it, if it is not open. Raises `Unavailable`."""
        with self._lock:
            self._open()

    def send(self, program: bytes) -> None:
        """Run a program. Raises `Unavailable`, ConnectionError."""
        self._use(lambda shell: shell.send(program))

    def ask(self, make_program: Callable[[str], bytes]) -> str:
        """Run the program made for a mark; return its answer. Raises `Unavailable`, ConnectionError."""
        mark = new_mark()
        return self._use(lambda shell: shell.ask(make_program(mark), mark))

    def close(self) -> None:
        """End it for good: every later call raises `Unavailable`."""
        with self._lock:
            self._closed = True
            if self._shell:
                self._shell.close()
                self._shell = None

    def _use(self, use: Callable[[LaneShell], T]) -> T:
        """Use the shell, and repeat that in a new one if it died: every program here is safe to run twice."""

        def use_once() -> T:
            shell = self._open()
            try:
                return use(shell)
            except DISCONNECTED as error:
                shell.close()
                self._shell = None
                raise ConnectionResetError(str(error)) from error

        with self._lock:
            return repeating(use_once, 2)

    def _open(self) -> LaneShell:
        if self._closed:
            raise Unavailable(Reason.START_REFUSED, "the run has ended")
        if not self._shell:
            self._shell = reconnecting(self._machine, self._new_shell)
            self.was_opened = True
        return self._shell

    def _new_shell(self) -> LaneShell:
        shell = LaneShell(self._machine.popen("exec sh"))
        mark = new_mark()
        try:
            understood(self._machine, shell.ask(programs.open_control(self._run_dir, mark), mark))
        except BaseException:
            shell.close()
            raise
        return shell
