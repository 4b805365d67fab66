"""A command followed over a connection that may break: the read loop of VM and container commands."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod

from pccpipe.errors import Lost, Nonsense
from pccpipe.machine.retry import UNREACHABLE, Backoff
from pccpipe.target import Chunk, Exit, Isolation


class RemoteRunning(ABC):
    """The part of a `Running` that reads, reconnects, and gives up. One thread reads.

    Args:
        lost_after: seconds for which the machine may stay away before the command counts as lost.
    """

    def __init__(self, isolation: Isolation, lost_after: float) -> None:
        self._isolation = isolation
        self._lost_after = lost_after
        self._retry = Backoff(lost_after)
        self._pending: list[Chunk] = []
        self._exit: Exit | None = None
        self._lost: Lost | None = None
        """Raised once all output is given."""

    @property
    def isolation(self) -> Isolation:
        return self._isolation

    @property
    def is_followed(self) -> bool:
        """True if a thread reads it that has not seen the end."""
        return self._is_connected and self._exit is None

    def read(self, timeout: float) -> Chunk | Exit | None:
        deadline = time.monotonic() + timeout
        while not self._pending:
            if self._exit:
                return self._exit
            if self._lost:
                raise self._lost
            self._go_on(max(0.0, deadline - time.monotonic()))
            if time.monotonic() >= deadline and not self._pending:
                return self._exit
        return self._pending.pop(0)

    def cpu_seconds(self) -> float | None:
        """Return None: only an engine says it."""
        return None

    def let_go(self) -> None:
        self._disconnect()

    def _go_on(self, timeout: float) -> None:
        """Take in output, or reconnect. Raises `Lost` if the machine stays away."""
        was_connected = self._is_connected
        try:
            if was_connected:
                self._take_in(timeout)
            elif self._retry.wait(timeout):
                self._connect()
                self._retry.succeeded()
        except Nonsense as error:
            # Asking again would give the same, or a better lie.
            self._disconnect()
            self._lost = Lost(error.words)
        except UNREACHABLE as error:
            self._disconnect()
            if not was_connected:
                self._retry.failed(error)

    @property
    @abstractmethod
    def _is_connected(self) -> bool: ...

    @abstractmethod
    def _take_in(self, timeout: float) -> None:
        """Wait for output or the end, and put them into `_pending` and `_exit`."""

    @abstractmethod
    def _connect(self) -> None:
        """Find the command again, and go on where its output stopped."""

    @abstractmethod
    def _disconnect(self) -> None:
        """Close what is open. Idempotent; never raises."""
