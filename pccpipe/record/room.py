"""Waits for space on the disk of a run's record. If none comes, the run stays as it is.

A full disk records nothing, so nothing may begin or end there either. Such a run has no end in its record; its commands
continue on their machines, and `resume` follows them.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pccpipe.errors import RecordFull

WAIT = 30.0
"""Seconds for which a run waits for space."""
POLL_EVERY = 0.2

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

T = TypeVar("T")


def is_full(error: BaseException | None) -> bool:
    """Say whether an error, or a cause of it, is a full disk of this machine, or a full quota."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        seen.add(id(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


class Room:
    """The space on the disk of a run's record. Safe from many threads.

    Args:
        run_dir: the run's folder, for messages.
        wait: seconds for which all writers together wait for space.
    """

    def __init__(self, run_dir: Path = Path(), wait: float = WAIT) -> None:
        self._run_dir = run_dir
        self._wait = wait
        self._lock = threading.Lock()
        self._since: float | None = None
        self._waited = 0.0
        self._over = threading.Event()
        self.on_wait: Callable[[str], None] = lambda _: None
        """Called with a sentence when a wait begins."""

    @property
    def is_missing(self) -> bool:
        """True if no space came: nothing is written any more, and the run stays as it is."""
        return self._over.is_set()

    def made(self, write: Callable[[], T]) -> T:
        """Call `write`, and retry it while the disk is full. Raises RecordFull, and all that `write` raises."""
        while True:
            self.check()
            try:
                done = write()
            except OSError as error:
                if not is_full(error):
                    raise
                self._wait_a_little()
            else:
                if self._since is not None:
                    self._found()
                return done

    def check(self) -> None:
        """Raise RecordFull if no space came."""
        if self._over.is_set():
            raise RecordFull(self._run_dir)

    def give_up(self) -> None:
        """End this wait and all later ones: the run is cancelled."""
        with self._lock:
            self._wait = 0.0
            if self._since is not None:
                self._over.set()

    def leave_if_full(self, error: BaseException) -> None:
        """Raise RecordFull for an error that a full disk of this machine caused: no step is at fault."""
        if is_full(error):
            self._over.set()
            raise RecordFull(self._run_dir) from error

    def pop_waited(self) -> float:
        """Return the seconds of waiting since the last call, once there is space again."""
        with self._lock:
            waited, self._waited = self._waited, 0.0
            return waited

    def _wait_a_little(self) -> None:
        now = time.monotonic()
        with self._lock:
            begins = self._since is None
            self._since = self._since or now
            if now - self._since >= self._wait:
                self._over.set()
        if begins:
            self.on_wait(f"{RecordFull(self._run_dir).message}: the run waits up to {self._wait:g} s for space")
        self._over.wait(POLL_EVERY)

    def _found(self) -> None:
        with self._lock:
            if self._since is not None:
                self._waited += time.monotonic() - self._since
                self._since = None
