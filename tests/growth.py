"""Measure how work grows with its size, against itself: a slow or a busy machine changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

TIMES = 8
"""The ratio of the large work to the small one."""
ROUNDS = 3


def is_linear(work: Callable[[int], object], size: int) -> bool:
    """Return whether `work(8 * size)` takes less than 20 times as long as `work(size)`: quadratic work takes 64 times.

    Takes the best of three rounds of this thread's processor time. `work(size)` must take milliseconds.
    """
    work(size)  # do the one-time work first
    small = min(_seconds(work, size) for _ in range(ROUNDS))
    return any(_seconds(work, TIMES * size) < 20 * small for _ in range(ROUNDS))


def _seconds(work: Callable[[int], object], size: int) -> float:
    began = time.thread_time()
    work(size)
    return time.thread_time() - began
