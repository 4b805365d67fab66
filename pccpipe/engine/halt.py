"""When work of pccpipe's own is to end before it is done: files that move, an image that is built."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec import Struct

from pccpipe.engine.cancel import Cancel
from pccpipe.engine.context import Ended
from pccpipe.engine.limits import Deadline
from pccpipe.errors import Halted
from pccpipe.outcome import Outcome


class StepHalt(Struct, frozen=True):
    """A step's `Halt`: its run's cancel, or its deadline."""

    cancel: Cancel
    deadline: Deadline | None

    @property
    def requested(self) -> bool:
        return self.cancel.requested or (self.deadline is not None and self.deadline.passed)

    def check(self) -> None:
        if self.requested:
            raise Halted(self.ended.message)

    def wait(self, seconds: float) -> None:
        self.cancel.wait(min(seconds, self.deadline.left) if self.deadline else seconds)
        self.check()

    @contextmanager
    def watched_by(self, watcher: Callable[[], None]) -> Iterator[None]:
        timer = threading.Timer(self.deadline.left, watcher) if self.deadline else None
        with self.cancel.watched_by(lambda _: watcher()):
            try:
                if timer:
                    timer.daemon = True
                    timer.start()
                yield
            finally:
                if timer:
                    timer.cancel()

    @property
    def ended(self) -> Ended:
        """How a step ends that was halted."""
        if self.cancel.requested or self.deadline is None:
            return Ended(Outcome.CANCELLED, message="cancelled")
        return Ended(Outcome.TIMED_OUT, message=self.deadline.message)
