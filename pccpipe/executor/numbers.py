"""Evaluate the numbers of a step: the pipeline has each as a value or as an expression."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping

from pccpipe.cancel import Deadline
from pccpipe.errors import PccpipeError
from pccpipe.spec.model import Value
from pccpipe.spec.units import tokens

LEAST_TIME = 10.0
"""Seconds that a step has at least after a resume, to read the end of a command that is already over."""


def number_of(
    value: Value[float] | Value[int] | None, names: Mapping[str, object], key: str, *, is_whole: bool = False
) -> float | None:
    """Evaluate a duration or a count; None if the step has none. Raises PccpipeError unless it is above 0."""
    if value is None or value.expression is None:
        return value.known if value else None
    source, got = value.expression.source, value.expression.evaluate(names)
    if key == "budget" and isinstance(got, str):
        with contextlib.suppress(ValueError):
            got = tokens(got)
    if isinstance(got, bool) or not isinstance(got, int if is_whole else int | float):
        raise PccpipeError(f"{key}: {source} must be a {'whole ' if is_whole else ''}number, and is {got!r}")
    if not 0 < got < math.inf:
        raise PccpipeError(f"{key}: {source} must be more than 0, and is {got!r}")
    return got


def whole_number_of(value: Value[int] | None, names: Mapping[str, object], key: str) -> int | None:
    """Evaluate a count as `number_of` does. Raises PccpipeError also if it is not whole."""
    got = number_of(value, names, key, is_whole=True)
    return None if got is None else int(got)


def deadline_since(began_at: float | None, seconds: float, owner: str) -> Deadline:
    """Return the deadline of a step or pipeline that may take `seconds` from `began_at` on; None: from now on."""
    gone = time.time() - began_at if began_at is not None else 0.0
    # A clock that was set back must not give more time than there is.
    left = seconds if began_at is None else min(seconds, max(seconds - gone, LEAST_TIME))
    return Deadline(time.monotonic() + left, owner, seconds)
