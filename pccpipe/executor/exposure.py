"""Track whether an agent's code may already have run, which limits the fallbacks of a run.

A run is exposed once an agent may have begun: its `may_have_begun` has no `target_unavailable` of the same attempt.
From then on, no step falls back to less isolation than the least isolated place where such code may have run. That code
may have made the step's own place unavailable. The place that `on:` leads to is not a fallback: the step's author, and
not the agent, chose it.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from enum import IntEnum

from pccpipe.outcome import Place
from pccpipe.record.begun import Begun
from pccpipe.record.events import Happening
from pccpipe.spec.model import Pipeline, Run
from pccpipe.spec.secret import Via


class Level(IntEnum):
    """The isolation of a place; the least is first."""

    LOCAL = 0
    LOCAL_AGENT = 1
    """On the controller, in the agent's own sandbox, which its command must switch on."""
    VM = 2
    CONTAINER = 3


def level_of(place: Place, *, agent: bool) -> Level:
    """Return the isolation that a step has at a place."""
    match place:
        case Place.CONTAINER:
            return Level.CONTAINER
        case Place.VM:
            return Level.VM
        case Place.LOCAL:
            return Level.LOCAL_AGENT if agent else Level.LOCAL


def is_agent(pipeline: Pipeline, body: Run) -> bool:
    """Say whether a step runs an agent: it asks for a container, or gets a secret through the proxy."""
    proxied = any(pipeline.secrets[name].via is Via.PROXY for name in body.secrets)
    return body.where.on is Place.CONTAINER or proxied


class Exposure:
    """The places where agents may have begun in a run, from its events. Safe from many threads.

    An agent that a person allowed to fall back does not widen the fallbacks of the other steps.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = Begun()
        self._expected: Counter[Level] = Counter()

    @property
    def least(self) -> Level | None:
        """Return the least isolation in which an agent's code may have run, or is about to; None if none has."""
        with self._lock:
            begun = [level_of(place, agent=True) for place in self._begun.chosen]
            return min([*begun, *self._expected.elements()], default=None)

    @property
    def is_exposed(self) -> bool:
        """Say whether an agent may have begun."""
        with self._lock:
            return self._begun.is_exposed

    @property
    def places(self) -> set[Place]:
        """Return the places where an agent may have begun."""
        with self._lock:
            return self._begun.all_places

    def forbids(self, level: Level) -> bool:
        """Say whether a step may no longer fall back to a place of this level."""
        least = self.least
        return least is not None and level < least

    def apply(self, event: Happening) -> None:
        """Apply an event; call in the order of the record."""
        with self._lock:
            self._begun.apply(event)

    def settle(self, path: str) -> None:
        """End an attempt of the step: what may have begun counts as begun, unless its place was unavailable."""
        with self._lock:
            self._begun.settle(path)

    @contextlib.contextmanager
    def expecting(self, levels: Iterable[Level]) -> Iterator[None]:
        """Count the agents of parallel steps from the block's start on, whichever step begins first."""
        expected = Counter(levels)
        with self._lock:
            self._expected.update(expected)
        try:
            yield
        finally:
            with self._lock:
                self._expected.subtract(expected)
