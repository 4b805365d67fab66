"""How long something may still take: the nearest of all the deadlines that it is inside of."""

from __future__ import annotations

import time

from msgspec import Struct

STEP_LIMIT = 6 * 3600.0
"""Seconds that a step may take which names no `timeout:`; no wait is without a limit."""
ALWAYS_LIMIT = 300.0
"""The same for a step under `always:`, which runs when somebody waits for the end."""


class Deadline(Struct, frozen=True):
    """A moment on the monotonic clock, and whose it is."""

    at: float
    owner: str
    """`step`, `pipeline`, or the path of the group that has the timeout: for the message."""
    seconds: float

    @staticmethod
    def after(seconds: float, owner: str) -> Deadline:
        return Deadline(time.monotonic() + seconds, owner, seconds)

    def nearest(self, other: Deadline | None) -> Deadline:
        return self if other is None or self.at <= other.at else other

    @property
    def left(self) -> float:
        return max(0.0, self.at - time.monotonic())

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self.at

    @property
    def message(self) -> str:
        return f"the time limit of {self.owner} ({self.seconds:g} s) has passed"


class Absence:
    """Since when the VM, or its engine, has been away: one wait for all the steps that need it."""

    def __init__(self) -> None:
        self._since: float | None = None

    def since(self, moment: float) -> float:
        """Say when it went away, on the monotonic clock; `moment` if that is news."""
        self._since = moment if self._since is None else min(self._since, moment)
        return self._since

    @property
    def is_known(self) -> bool:
        """Say whether it is away, as far as anyone has seen."""
        return self._since is not None

    def end(self) -> None:
        """It is back."""
        self._since = None
