"""The name by which a run reaches what it is about to do on a machine that another host may take over (lease.sh).

`.system/gates/7` is a link to `.system` for the holder of lease number 7. Who takes the machine over removes it before
all else: a claim, a mount or a script of the old holder's that is still on its way then finds nothing.
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
    """Shut (paths are plain) until the lease was taken. Safe from many threads.

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
        """0 before the lease was taken."""
        return self._number

    @property
    def link(self) -> str:
        """Its path; empty before the lease was taken."""
        return f"{self._system}/{GATES}/{self._number}" if self._number else ""

    def open(self, number: int, ask: Callable[[], None], look_again: Callable[[], None] | None) -> None:
        """The lease was taken under this number.

        Args:
            ask: finds out whether the machine is still the run's. Raises `Fenced`, `Unavailable`.
            look_again: what is to be done after the first start, if the lease was taken over from another holder.
        """
        self._number, self._ask, self._look_again = number, ask, look_again

    def close(self) -> None:
        """The lease was given back, and the gate with it."""
        self._number = 0

    def through(self, path: str) -> str:
        """A path below `.system` as it leads through the gate."""
        if self._number and path.startswith(f"{self._system}/"):
            return f"{self.link}{path.removeprefix(self._system)}"
        return path

    def guard(self) -> str:
        """Lines of sh that end the connection which they came by, and themselves, if the gate is gone."""
        return f"[ -h {shlex.quote(self.link)} ] || {{ kill -KILL $PPID; exit 97; }}\n" if self._number else ""

    @property
    def test(self) -> str:
        """A line of sh that fails if it is gone."""
        return f"[ -h {shlex.quote(self.link)} ]" if self._number else ":"

    def check(self) -> None:
        """Something found no gate. Raises `Fenced` if the machine is another's; else there is a gate again."""
        self._ask()

    def begun(self) -> None:
        """A command or container has begun. Never raises: what it takes to follow that says what is wrong."""
        with self._lock:
            look, self._look_again = self._look_again, None
        if look:
            try:
                look()
            except UNREACHABLE:
                # After the next one, then.
                self._look_again = look


def plain(path: str) -> str:
    """The path without the gate that it leads through."""
    return _THROUGH.sub(r"\1", path, count=1)
