"""Halts for transfers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator


class NeverHalted:
    """The `Halt` of work that is to come to its end."""

    requested = False

    def check(self) -> None:
        return

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    @contextlib.contextmanager
    def watched_by(self, watcher: Callable[[], None]) -> Iterator[None]:
        yield
