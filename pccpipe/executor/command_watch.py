"""Watch an agent's command while it runs: whether it does anything, and whether its provider refuses its calls."""

from __future__ import annotations

import contextlib
import time
from enum import Enum, auto

from pccpipe.errors import PccpipeError
from pccpipe.executor.run_step import RunStep
from pccpipe.executor.secrets import StepSecrets
from pccpipe.record.agent_events import Stalled
from pccpipe.target import Running
from pccpipe.words import duration

LIMIT_GRACE = 20.0
"""Seconds that an agent has to end by itself after a provider's limit that lasts too long."""
BUSY = 0.01
"""CPU seconds a second from which on a command works; programs that only wait use less."""
LOOKS = 4
"""The number of looks in the time after which a quiet command is stalled."""


class WatchEnd(Enum):
    """The reason for which a watched command is ended."""

    LIMITED = auto()
    STALLED = auto()


class CommandWatch:
    """Watches one attempt's command. From the thread that reads it."""

    def __init__(self, step: RunStep, number: int, secrets: StepSecrets, running: Running) -> None:
        assert step.body.agent
        self._step = step
        self._number = number
        self._secrets = secrets
        self._running = running
        self._after = step.body.agent.stalled_after
        self._ends = step.body.agent.ends_stalled
        now = time.monotonic()
        self._worked = now
        self._looked = now
        self._cpu: float | None = None
        self._knows_cpu = True
        self._is_reported = False
        self._limited_since: float | None = None
        self.message = ""
        """The reason of the end, in a sentence."""

    @property
    def every(self) -> float:
        """The longest time between two calls of `check`."""
        return max(0.2, self._after / LOOKS)

    def heard(self) -> None:
        """Note output of the command."""
        self._worked, self._is_reported = time.monotonic(), False

    def check(self) -> WatchEnd | None:
        """Return the reason to end the command, if there is one; report a stalled one."""
        now = time.monotonic()
        if self._secrets.limit is None:
            self._limited_since = None
        elif self._limited_since is None:
            self._limited_since = now
        elif now - self._limited_since >= LIMIT_GRACE:
            self.message = "stopped: its provider's limit lasts too long"
            return WatchEnd.LIMITED
        return self._stalled(now)

    def _stalled(self, now: float) -> WatchEnd | None:
        quiet = min(now - self._worked, self._secrets.quiet)
        if quiet < self._after / LOOKS:
            self._is_reported = False
            self._cpu, self._looked = None, now
            return None
        if now - self._looked >= self._after / LOOKS or self._cpu is None:
            self._look_at_cpu(now)
            quiet = min(now - self._worked, self._secrets.quiet)
        if quiet < self._after:
            return None
        unseen = "" if self._knows_cpu else "its CPU time cannot be read there"
        if not self._is_reported:
            self._is_reported = True
            self._step.context.journal.append(Stalled(self._step.path, self._number, quiet, unseen))
        if not self._ends:
            return None
        self.message = f"stalled: it did nothing for {duration(quiet)} (`on_stall: end`)"
        return WatchEnd.STALLED

    def _look_at_cpu(self, now: float) -> None:
        used = None
        with contextlib.suppress(PccpipeError, OSError):
            used = self._running.cpu_seconds()
        self._knows_cpu = used is not None
        if used is not None and self._cpu is not None and used - self._cpu > BUSY * (now - self._looked):
            self.heard()
        self._cpu, self._looked = used, now
