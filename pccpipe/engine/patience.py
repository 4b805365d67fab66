"""A VM that was there a moment ago may be back in a moment: sshd restarts within a second, a link heals."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from pccpipe.engine.context import Parts
from pccpipe.errors import Broken, Unavailable
from pccpipe.outcome import Reason

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds for which a VM that this run has had may be away before a step does without it."""
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 5.0
_PASSING = frozenset({Reason.SSH_REFUSED, Reason.SSH_UNREACHABLE, Reason.SSH_CLOSED, Reason.SSH_SESSION_REFUSED})


def with_patience(parts: Parts, do: Callable[[], T]) -> T:
    """Do what may be done twice; again while the VM is away, if this run has had it before, for at most `PATIENCE`.

    A VM that was never had is not waited for: a wrong address is to be told at once. Raises `Unavailable`.
    """
    until = time.monotonic() + PATIENCE
    pause = FIRST_PAUSE
    while True:
        try:
            return do()
        except Unavailable as no:
            passing = isinstance(no, Broken) or (no.reason in _PASSING and parts.targets.had_vm)
            if not passing or time.monotonic() + pause > until or parts.cancel.wait(pause):
                raise
            pause = min(2 * pause, LONGEST_PAUSE)
