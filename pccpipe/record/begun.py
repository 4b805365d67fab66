"""The places where code of an agent may have begun in a run, counted over its events."""

from __future__ import annotations

from msgspec import Struct, field

from pccpipe.outcome import Place
from pccpipe.record.events import (
    CommandStarted,
    Happening,
    MayHaveBegun,
    SecretsGiven,
    StepEnded,
    StepRetrying,
    StepStarted,
    TargetUnavailable,
)

PROXIED = "proxy"


class Begun(Struct):
    """The places where an agent may have begun. `apply` each event of a run, in order.

    A `target_unavailable` revokes only the `may_have_begun` of its own attempt. A group that is retried counts its
    attempts from 1 again, and the first ones did run.
    """

    places: set[Place] = field(default_factory=set)
    """The places where one began, or may have, beyond revocation."""
    consented: set[Place] = field(default_factory=set)
    """The same, for those that began late because a person allowed it."""
    _open: dict[tuple[str, int, Place], MayHaveBegun] = field(default_factory=dict)
    """The attempts whose next event says whether they began."""
    _proxied: set[tuple[str, int]] = field(default_factory=set)

    @property
    def is_exposed(self) -> bool:
        """Say whether an agent may have begun."""
        return bool(self.places or self.consented or self._open)

    @property
    def chosen(self) -> set[Place]:
        """The places where one may have begun without a person's consent."""
        return self.places | {may.place for may in self._open.values() if not may.consented}

    @property
    def all_places(self) -> set[Place]:
        """All places where one may have begun."""
        return self.chosen | self.consented | {may.place for may in self._open.values()}

    def apply(self, what: Happening) -> None:
        """Add one more event."""
        match what:
            case MayHaveBegun():
                self._open[what.step, what.attempt, what.place] = what
            case TargetUnavailable():
                self._open.pop((what.step, what.attempt, what.asked), None)
            case SecretsGiven() if PROXIED in what.modes.values():
                self._proxied.add((what.step, what.attempt))
            case CommandStarted():
                self._command_started(what)
            case StepStarted() | StepRetrying() | StepEnded():
                self.settle(what.step)
            case _:
                pass

    def settle(self, step: str) -> None:
        """Count an attempt that may have begun as begun: it is over, and was not unavailable."""
        for key in [key for key in self._open if key[0] == step]:
            may = self._open.pop(key)
            (self.consented if may.consented else self.places).add(may.place)

    def _command_started(self, what: CommandStarted) -> None:
        place = what.had.place
        is_announced = (what.step, what.attempt, place) in self._open
        is_agent = place is Place.CONTAINER or (what.step, what.attempt) in self._proxied
        if is_agent and not is_announced:
            self.places.add(place)  # a record of version 0.1, which announces no agent
        self.settle(what.step)
