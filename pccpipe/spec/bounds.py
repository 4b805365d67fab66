"""The work that expressions may still do in a thread. Apart from `work.py`, which imports Jinja2 (40 ms)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pccpipe import limits


class WorkLeft(threading.local):
    units: int | None = None
    limit: limits.Limit = limits.EXPRESSION_WORK


left = WorkLeft()


@contextmanager
def bounded_work(limit: limits.Limit = limits.EXPRESSION_WORK) -> Iterator[None]:
    """Limit the work of expressions in the block; the work counts for an outer block too."""
    outer, outer_limit = left.units, left.limit
    units = limit.most
    if outer is not None and outer < units:
        units, limit = outer, outer_limit
    left.units, left.limit = units, limit
    try:
        yield
    finally:
        left.units = None if outer is None else outer - (units - left.units)
        left.limit = outer_limit
