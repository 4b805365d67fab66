"""Stops everything in a container: TERM at once, and KILL when the grace is over."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from pccpipe.docker_api.problems import ApiCall
from pccpipe.errors import Lost
from pccpipe.machine.retry import UNREACHABLE, retrying
from pccpipe.targets.container_exit import ContainerRef

KILL_LIMIT = 20.0
"""Seconds for which an unreachable engine is asked again for the KILL."""


class ContainerStopper:
    """Works in a thread of its own, which the first `stop` starts.

    Args:
        has_ended: whether the command's end was read.
    """

    def __init__(self, ref: ContainerRef, has_ended: Callable[[], bool]) -> None:
        self._ref = ref
        self._has_ended = has_ended
        self._changed = threading.Condition()
        self._kill_at: float | None = None
        self.may_have_arrived = False
        """True once a signal was sent that may have reached the container."""

    @property
    def was_asked(self) -> bool:
        """True if `stop` was called."""
        return self._kill_at is not None

    def stop(self, grace: float) -> None:
        with self._changed:
            is_first, kill_at = self._kill_at is None, time.monotonic() + grace
            self._kill_at = min(kill_at, self._kill_at or kill_at)
            self._changed.notify_all()
        if is_first:
            threading.Thread(target=self._run, name=f"pccpipe-stop-{self._ref.name}", daemon=True).start()

    def _run(self) -> None:
        self._term_all()
        with self._changed:
            while not self._has_ended() and self._kill_at is not None:
                left = self._kill_at - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(min(left, 0.2))
        with contextlib.suppress(Lost):
            retrying(self._kill, KILL_LIMIT)

    def _term_all(self) -> None:
        """Send TERM to every process: the engine's own signal would reach the first one alone."""
        engine, container = self._ref.engine, self._ref.container
        term = ["/bin/sh", "-c", "kill -TERM -1"]
        try:
            made = engine.id_of(engine.ask(ApiCall.OTHER, lambda client: client.exec_create(container, term)))
            self.may_have_arrived = True
            engine.ask(ApiCall.OTHER, lambda client: client.exec_start(made, detach=True))
        except UNREACHABLE:
            return  # it has ended, or KILL will end it

    def _kill(self) -> None:
        container = self._ref.container
        if not self._has_ended() and self._ref.state().get("Running") is True:
            self.may_have_arrived = True
            self._ref.engine.ask(ApiCall.OTHER, lambda client: client.kill(container, "KILL"))
