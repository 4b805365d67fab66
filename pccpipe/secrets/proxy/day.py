"""Count what a project's runs spend in a day, in a file that all processes on this machine share.

Each call adds a line for its reservation, and one for the difference once it is over; both name the call. A process
that is killed between leaves the reservation. A line that a full disk cut counts nothing: its call was refused, or its
reservation stays.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pccpipe.secrets.proxy.accounts import BudgetAccount, Money, Payer, SpendLimits

KEPT_DAYS = 31
"""Days for which the files stay."""
LOCK_LIMIT = 10.0
"""Seconds that a call waits for another process, which holds the file for less than a millisecond."""
_PIECE = 1 << 20


class DayAccount(BudgetAccount):
    """What all runs of a project spend in a day of UTC.

    Args:
        folder: of the project's days; made if need be.
        run_id: for people who read the file.
        now: the seconds since the epoch.
    """

    def __init__(self, folder: Path, limits: SpendLimits, run_id: str, now: Callable[[], float] = time.time) -> None:
        super().__init__(Payer.DAY, limits)
        self._folder = folder
        self._run_id = run_id
        self._now = now
        self._day = ""
        self._fd = -1
        self._read = 0
        self._has_whole_lines = True
        self._own = f"{os.getpid()}.{secrets.token_hex(4)}."
        """Begins the names of its own calls; those of others begin with their process too."""
        self._numbers = itertools.count(1)
        self._under_way: set[str] = set()
        """The calls that the file has without their end."""

    @property
    def has_others(self) -> bool:
        return any(not call.startswith(self._own) and _is_alive(call) for call in self._under_way)

    @contextmanager
    def held(self) -> Iterator[None]:
        with self._locked(self._today()):
            yield

    def reserve(self, amount: Money) -> str:
        """Add a line to the file, within `held`: `used` has the reservations too, also those of others."""
        call = f"{self._own}{next(self._numbers)}"
        if amount != Money():
            self._append(amount, call)
        self.calls += 1
        return f"{self._day} {call}"

    def settle(self, reserved: Money, used: Money, of: str) -> None:
        """Add the difference to the file of the day of the reservation; if that fails, the reservation stays."""
        self.calls -= 1
        if used == reserved == Money():
            return
        day, _, call = of.partition(" ")
        with contextlib.suppress(OSError), self._locked(day):
            self._append(used - reserved, call)

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._day = -1, ""

    @contextmanager
    def _locked(self, day: str) -> Iterator[None]:
        self._open(day)
        until = time.monotonic() + LOCK_LIMIT
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.002)
        try:
            self._catch_up()
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _today(self) -> str:
        """Return the day; a clock that was set back over midnight does not begin yesterday's account again."""
        today = datetime.fromtimestamp(self._now(), UTC)
        tomorrow = (today + timedelta(days=1)).date().isoformat()
        return tomorrow if (self._folder / tomorrow).exists() else today.date().isoformat()

    def _open(self, day: str) -> None:
        if day == self._day:
            return
        self.close()
        path = self._folder / day
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._remove_old(day)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._day, self._read, self.used, self._has_whole_lines = day, 0, Money(), True
        self._under_way.clear()

    def _catch_up(self) -> None:
        """Add the lines that are new since the last look."""
        while piece := os.pread(self._fd, _PIECE, self._read):
            whole = piece.rfind(b"\n") + 1
            self._has_whole_lines = whole == len(piece)
            if not whole and len(piece) == _PIECE:
                whole = len(piece)  # no line of ours is this long
            for line in piece[:whole].split(b"\n"):
                money, call = _entry(line)
                self.used += money
                if call:
                    self._under_way ^= {call}
            self._read += whole
            if not self._has_whole_lines and len(piece) < _PIECE:
                break

    def _append(self, money: Money, call: str) -> None:
        line = json.dumps({"run": self._run_id, "tokens": money.tokens, "micros": money.micros, "call": call})
        data = f"{'' if self._has_whole_lines else chr(10)}{line}\n".encode()
        if os.write(self._fd, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._catch_up()

    def _remove_old(self, day: str) -> None:
        oldest = (datetime.fromisoformat(day) - timedelta(days=KEPT_DAYS)).date().isoformat()
        for path in self._folder.iterdir():
            if path.name < oldest:
                path.unlink(missing_ok=True)


def _entry(line: bytes) -> tuple[Money, str]:
    """Return the amount of a line, and its call if it names one."""
    try:
        match json.loads(line):
            case {"tokens": int(tokens), "micros": int(micros), "call": str(call)}:
                return Money(tokens, micros), call
            case {"tokens": int(tokens), "micros": int(micros)}:
                return Money(tokens, micros), ""
            case _:
                pass
    except (ValueError, RecursionError):
        pass
    return Money(), ""


def _is_alive(call: str) -> bool:
    """Say whether the process of a call still runs."""
    try:
        os.kill(int(call.partition(".")[0]), 0)
    except PermissionError:
        return True
    except (OSError, ValueError, OverflowError):
        return False
    return True
