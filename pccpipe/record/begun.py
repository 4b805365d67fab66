"""Where code of an agent may have begun in a run, counted over its events in their order."""

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
    """Where an agent may have begun. `apply` each event of a run, in order.

    A `target_unavailable` takes back the word of its own attempt only: a group that is tried again counts its attempts
    from 1 again, and what ran the first time did run.
    """

    places: set[Place] = field(default_factory=set)
    """Where one has begun, or may have, and nothing can take that back."""
    consented: set[Place] = field(default_factory=set)
    """The same of those that came so far only because a person let them."""
    _open: dict[tuple[str, int, Place], MayHaveBegun] = field(default_factory=dict)
    """Those of which it is still to come whether they began."""
    _proxied: set[tuple[str, int]] = field(default_factory=set)

    @property
    def is_exposed(self) -> bool:
        """Say whether an agent may have begun."""
        return bool(self.places or self.consented or self._open)

    @property
    def chosen(self) -> set[Place]:
        """Say where one may have begun without a person's consent."""
        return self.places | {may.place for may in self._open.values() if not may.consented}

    @property
    def all_places(self) -> set[Place]:
        """Say where one may have begun at all."""
        return self.chosen | self.consented | {may.place for may in self._open.values()}

    def apply(self, what: Happening) -> None:
        """Take in one more event."""
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
        """An attempt of the step is over, and was not unavailable: what may have begun counts as begun."""
        for key in [key for key in self._open if key[0] == step]:
            may = self._open.pop(key)
            (self.consented if may.consented else self.places).add(may.place)

    def _command_started(self, what: CommandStarted) -> None:
        place = what.had.place
        told = (what.step, what.attempt, place) in self._open
        is_agent = place is Place.CONTAINER or (what.step, what.attempt) in self._proxied
        if is_agent and not told:
            self.places.add(place)  # a record of version 0.1, which says it of no agent
        self.settle(what.step)
