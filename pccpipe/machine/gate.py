"""The gate of a run: the path through which it starts things on a machine that another host may take over (lease.sh).

`.system/gates/7` is a link to `.system` for the holder of lease number 7. A run that takes the machine over removes it
first. A claim, a mount or a script of the old holder that is still on its way then finds nothing.
"""

from __future__ import annotations

import re
import shlex
import threading
from collections.abc import Callable

from pccpipe.layout import GATES, SYSTEM
from pccpipe.machine.retry import UNREACHABLE

_THROUGH = re.compile(rf"(/{re.escape(SYSTEM)})/{GATES}/[1-9][0-9]{{0,7}}(?=/)")


class Gate:
    """A run's gate. It is closed, and leaves paths as they are, until the run takes the lease. Thread-safe.

    Args:
        system: the folder `.system` on the machine.
    """

    def __init__(self, system: str) -> None:
        self._system = system
        self._number = 0
        self._lock = threading.Lock()
        self._look_again: Callable[[], None] | None = None
        self._ask: Callable[[], None] = lambda: None

    @property
    def number(self) -> int:
        """The number of the lease; 0 before the run took it."""
        return self._number

    @property
    def link(self) -> str:
        """The gate's path; empty before the run took the lease."""
        return f"{self._system}/{GATES}/{self._number}" if self._number else ""

    def open(self, number: int, ask: Callable[[], None], look_again: Callable[[], None] | None) -> None:
        """Open the gate: the run took the lease under this number.

        Args:
            ask: finds out whether the machine is still the run's. Raises `Fenced`, `Unavailable`.
            look_again: runs after the first start, if the run took the lease over from another holder.
        """
        self._number, self._ask, self._look_again = number, ask, look_again

    def close(self) -> None:
        """Close the gate: the run gave the lease back."""
        self._number = 0

    def through(self, path: str) -> str:
        """Lead a path below `.system` through the gate."""
        if self._number and path.startswith(f"{self._system}/"):
            return f"{self.link}{path.removeprefix(self._system)}"
        return path

    def guard(self) -> str:
        """Return lines of sh that end their own connection, and themselves, if the gate is gone."""
        return f"[ -h {shlex.quote(self.link)} ] || {{ kill -KILL $PPID; exit 97; }}\n" if self._number else ""

    @property
    def test(self) -> str:
        """A line of sh that fails if the gate is gone."""
        return f"[ -h {shlex.quote(self.link)} ]" if self._number else ":"

    def check(self) -> None:
        """Ask about a gate that is gone. Raises `Fenced` if another run has the machine; else the gate is back."""
        self._ask()

    def begun(self) -> None:
        """Note that a command or container has begun. Never raises: following the command shows what is wrong."""
        with self._lock:
            look, self._look_again = self._look_again, None
        if look:
            try:
                look()
            except UNREACHABLE:
                # The next start tries again.
                self._look_again = look


def plain(path: str) -> str:
    """Return the path without the gate that it leads through."""
    return _THROUGH.sub(r"\1", path, count=1)
