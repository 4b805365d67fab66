"""Passes a run's events to the standard library's `logging`, for programs that use it. Silent in all others.

The logger is `pccpipe`. Each line has the run's id, which the LogRecord has as `run_id` too.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pccpipe.outcome import Outcome
from pccpipe.record.agent_events import Activity
from pccpipe.record.codec import kind_of
from pccpipe.record.events import Event, Output, StepDowngraded, TargetUnavailable, Warned
from pccpipe.record.run_events import RunEnded, RunStopped

if TYPE_CHECKING:
    import logging

NAME = "pccpipe"


def logger_in_use() -> logging.Logger | None:
    """Return the logger; None if the program does not use `logging`, whose import takes time."""
    module = sys.modules.get("logging")
    if module is None:
        return None
    logger: logging.Logger = module.getLogger(NAME)
    if not logger.handlers:
        # Without a handler of the program's, a warning would go to stderr.
        logger.addHandler(module.NullHandler())
    return logger


class EventLog:
    """A listener of a journal."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id

    def __call__(self, event: Event) -> None:
        logger = logger_in_use()
        if logger is None:
            return
        level = _level(event)
        if logger.isEnabledFor(level):
            words = _words(event)
            logger.log(level, "run %s: %s%s", self._run_id, kind_of(event.what), words, extra={"run_id": self._run_id})


def _level(event: Event) -> int:
    """Return DEBUG, INFO or WARNING, as the numbers of `logging`."""
    match event.what:
        case Output() | Activity():
            return 5
        case Warned() | StepDowngraded() | TargetUnavailable() | RunStopped():
            return 30
        case RunEnded():
            return 20 if event.what.outcome is Outcome.SUCCEEDED else 30
        case _:
            return 20 if kind_of(event.what).startswith("run_") else 10


def _words(event: Event) -> str:
    """Return the step, the outcome and the message of an event, as far as it has them."""
    found = (getattr(event.what, name, None) for name in ("step", "outcome", "message", "words"))
    return "".join(f" {each}" for each in found if each)
