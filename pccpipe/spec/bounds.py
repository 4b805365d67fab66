"""What is left of the work that expressions may do in a thread. It needs no Jinja2, which takes 40 ms to import."""

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
    """Bound what is evaluated in the block; a block around it pays for it as well."""
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
