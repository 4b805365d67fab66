"""Ends work on a machine at a cancel or a timeout, wherever that work waits."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from typing import Any, TypeVar

from pccpipe.cancel import Halt
from pccpipe.errors import ActionError, PccpipeError
from pccpipe.machine.base import ByteStream, Done, Facts, Machine, Process
from pccpipe.machine.retry import UNREACHABLE
from pccpipe.machine.script import run_script

S = TypeVar("S", bound=ByteStream)


@contextlib.contextmanager
def until_halted(machine: Machine, halt: Halt) -> Iterator[Machine]:
    """Give the block a machine whose streams a halt closes. Raises `Halted` if the block failed after a halt."""
    haltable = HaltableMachine(machine)
    try:
        with halt.watched_by(haltable.halt):
            yield haltable
    except (*UNREACHABLE, ActionError):
        halt.check()
        raise


class HaltableMachine:
    """A `Machine` for one piece of work. A halt closes its streams, so code that waits for one gets ConnectionError."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._lock = threading.Lock()
        self._halted = False
        self._streams: list[ByteStream] = []
        self._waiting: list[Future[Any]] = []

    @property
    def host(self) -> str:
        return self._machine.host

    @property
    def facts(self) -> Facts:
        return self._machine.facts

    def popen(self, command: str) -> Process:
        return self._begun(lambda: self._machine.popen(command))

    def run(self, script: str, timeout: float = 60.0) -> Done:
        return run_script(self.popen("exec sh"), script, timeout)

    def dial(self, path: str, timeout: float = 10.0) -> ByteStream:
        return self._begun(lambda: self._machine.dial(path, timeout))

    def halt(self) -> None:
        """Close the streams, and refuse new ones. Any thread may call it."""
        with self._lock:
            self._halted = True
            waiting, streams = list(self._waiting), list(self._streams)
        for future in waiting:
            with contextlib.suppress(InvalidStateError):
                future.set_exception(ConnectionAbortedError("halted"))
        for stream in streams:
            stream.close()

    def _begun(self, begin: Callable[[], S]) -> S:
        """Return the stream that `begin` opens.

        A silent machine may hold `begin` up, so it runs in a thread of its own. A halt does not wait for that thread,
        which closes a stream that comes too late.
        """
        future: Future[S] = Future()
        with self._lock:
            if self._halted:
                raise ConnectionAbortedError("halted")
            self._waiting.append(future)
        threading.Thread(target=self._begin, args=(future, begin), name="pccpipe-begin", daemon=True).start()
        return future.result()

    def _begin(self, future: Future[S], begin: Callable[[], S]) -> None:
        try:
            stream = begin()
        except (PccpipeError, OSError) as error:
            with contextlib.suppress(InvalidStateError):
                future.set_exception(error)
            return
        with self._lock:
            self._streams.append(stream)
        try:
            future.set_result(stream)
        except InvalidStateError:
            stream.close()
