"""Whether code of an agent may already have run, and what the run may then no longer do.

A run is exposed once an agent may have begun: its `may_have_begun` has no `target_unavailable` of the same attempt.
From then on no step falls back to a place with less isolation than the least isolated one in which such code may have
run, because that code may have caused what the step falls back from. The place that a step's `on:` leads to is not a
fallback: its author chose it, and the author is not the agent.
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
from pccpipe.spec.model import Pipeline, Run, Via


class Level(IntEnum):
    """How isolated a place is, the least first."""

    LOCAL = 0
    LOCAL_AGENT = 1
    """On the controller, with the agent's own sandbox, which its command is to switch on."""
    VM = 2
    CONTAINER = 3


def level_of(place: Place, *, agent: bool) -> Level:
    """The isolation of a place for a step that is an agent or not."""
    match place:
        case Place.CONTAINER:
            return Level.CONTAINER
        case Place.VM:
            return Level.VM
        case Place.LOCAL:
            return Level.LOCAL_AGENT if agent else Level.LOCAL


def is_agent(pipeline: Pipeline, body: Run) -> bool:
    """Say whether a step runs an agent: it asks for a container, or gets a secret by the proxy."""
    proxied = any(pipeline.secrets[name].via is Via.PROXY for name in body.secrets)
    return body.where.on is Place.CONTAINER or proxied


class Exposure:
    """What may have begun in a run, from its events. Safe from many threads.

    An agent that a person let fall back makes the run no less strict with the others.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = Begun()
        self._expected: Counter[Level] = Counter()

    @property
    def least(self) -> Level | None:
        """The least isolated place in which an agent's code may have run, or is about to; None: it has not."""
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
        """Say where an agent may have begun."""
        with self._lock:
            return self._begun.all_places

    def forbids(self, level: Level) -> bool:
        """Say whether a fallback to a place of this level comes too late."""
        least = self.least
        return least is not None and level < least

    def apply(self, event: Happening) -> None:
        """Take in an event, in the order of the record."""
        with self._lock:
            self._begun.apply(event)

    def settle(self, path: str) -> None:
        """An attempt of the step is over: what may have begun counts as begun, unless it was unavailable."""
        with self._lock:
            self._begun.settle(path)

    @contextlib.contextmanager
    def expecting(self, levels: Iterable[Level]) -> Iterator[None]:
        """Count agents that begin side by side with other steps from the block's beginning, whichever is first."""
        expected = Counter(levels)
        with self._lock:
            self._expected.update(expected)
        try:
            yield
        finally:
            with self._lock:
                self._expected.subtract(expected)
