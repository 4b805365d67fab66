"""Limits how many commands run on a machine at a time, and keeps idle connections for the next ones."""

from __future__ import annotations

import threading
import time
from typing import Generic, Protocol, TypeVar

from pccpipe.errors import Unavailable
from pccpipe.outcome import Reason


class Closable(Protocol):
    def close(self) -> None: ...


C = TypeVar("C", bound=Closable)


class Slots(Generic[C]):
    """A slot for each command that may run, and the idle connections. Thread-safe.

    Args:
        host: the machine, for messages.
        limit: how many commands may run at a time; further ones wait.
    """

    def __init__(self, host: str, limit: int) -> None:
        self._host = host
        self._limit = limit
        self._changed = threading.Condition()
        self._idle: list[C] = []
        self._in_use = 0
        self.is_closed = False

    def take(self, timeout: float) -> None:
        """Wait for a slot; `free` it afterwards. Raises `Unavailable`."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while self._in_use >= self._limit and not self.is_closed:
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    words = f"{self._host}: {self._limit} commands ran at a time for {timeout:g} s"
                    raise Unavailable(Reason.START_REFUSED, words)
            self._check_open()
            self._in_use += 1

    def adopt(self) -> None:
        """Count a command that another process of the run began; `free` its slot afterwards."""
        with self._changed:
            self._in_use += 1

    def free(self) -> None:
        with self._changed:
            self._in_use -= 1
            self._changed.notify()

    def idle(self) -> C | None:
        """Take an idle connection, if there is one."""
        with self._changed:
            return self._idle.pop() if self._idle else None

    def keep(self, connection: C) -> None:
        """Keep a connection for the next command; after `close`, close it."""
        with self._changed:
            if self.is_closed:
                connection.close()
            else:
                self._idle.append(connection)

    def check_open(self) -> None:
        """Raise `Unavailable` after `close`."""
        with self._changed:
            self._check_open()

    def close(self) -> bool:
        """Give out no more slots, and close the idle connections. Return False if it was closed before."""
        with self._changed:
            if self.is_closed:
                return False
            self.is_closed = True
            idle, self._idle = self._idle, []
            self._changed.notify_all()
        for connection in idle:
            connection.close()
        return True

    def _check_open(self) -> None:
        if self.is_closed:
            raise Unavailable(Reason.START_REFUSED, "the run has ended")
