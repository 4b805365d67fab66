"""Hold every parser to one rule: it returns, or raises a documented error, soon and in little memory."""

from __future__ import annotations

import contextlib
import resource
import time
from pathlib import Path

from pccpipe.errors import PccpipeError
from pccpipe.limits import MARGIN
from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).with_name("corpus")
SECONDS = 1.0
"""The most processor time for one small input, on a slow machine."""
_LOADED: set[str] = set()


class BrokenRule(Exception):
    """A parser that broke the rule."""


def hold(name: str, data: bytes, slower: float = 1.0) -> None:
    """Parse, and raise BrokenRule, or the exception that the parser must not raise."""
    target = TARGETS[name]
    allowed: tuple[type[Exception], ...] = (PccpipeError, *target.errors)
    began, memory = time.thread_time(), _peak()
    with contextlib.suppress(*allowed):
        target.parse(data)
    took, grew = time.thread_time() - began, _peak() - memory
    # The first input also includes late imports.
    first = name not in _LOADED
    _LOADED.add(name)
    if took > SECONDS * slower * (3 if first else 1):
        raise BrokenRule(f"{name}: {len(data)} bytes took {took:.1f} s")
    if grew > MARGIN * (2 if first else 1):
        raise BrokenRule(f"{name}: {len(data)} bytes took {grew >> 20} MiB")


def corpus(name: str) -> list[Path]:
    """Return the inputs of a parser."""
    return sorted((CORPUS / name).iterdir())


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
