"""Hold one turn of a step with its recorded events, which a resumed walk consumes."""

from __future__ import annotations

from collections import deque
from typing import TypeVar

from msgspec import Struct, field

from pccpipe.outcome import Outcome
from pccpipe.record.agent_events import ModelLimited, ModelUsed
from pccpipe.record.events import (
    CommandEnded,
    CommandStarted,
    Happening,
    MayHaveBegun,
    SecretsGiven,
    ServiceStarted,
    StepDowngraded,
    StepEnded,
    StepRetrying,
    StepStarted,
    TargetUnavailable,
)
from pccpipe.values import Json

_NEVER_BEGAN = (TargetUnavailable, StepRetrying, StepDowngraded, MayHaveBegun)

H = TypeVar("H")


class ServiceTurn(Struct):
    """A service of a turn, as the record knows it."""

    started: ServiceStarted
    ready: bool = False
    ended: bool = False


class Turn(Struct):
    """One turn of a step, with its recorded events that the walk has not consumed. A new turn has none."""

    recorded: deque[Happening] = field(default_factory=deque)
    began_at: float | None = None
    """Seconds since the epoch."""
    ended: StepEnded | None = None
    is_input_requested: bool = False
    """The record has its agent's request for input."""
    answers: dict[str, Json] = field(default_factory=dict)
    given: list[SecretsGiven] = field(default_factory=list)
    used: ModelUsed | None = None
    is_reopened: bool = False
    """Its last command is over, and its place became unusable: it gets another command."""
    limits: dict[int, ModelLimited] = field(default_factory=dict)
    """The providers' limits that ended attempts, by the number of the attempt."""
    due: deque[float] = field(default_factory=deque)
    """The time of each next attempt, in seconds since the epoch."""
    is_past: bool = False
    """The group around it continued with its next attempt, or its next round."""
    services: dict[str, ServiceTurn] = field(default_factory=dict)
    service_begins: int = 0
    """How often its services began."""
    epoch: int = 0
    """The number of attempts and rounds that the groups around it had when it began."""

    def peek(self, kind: type[H]) -> H | None:
        """Return the next recorded event if it is of that kind; it stays."""
        head = self.recorded[0] if self.recorded else None
        return head if isinstance(head, kind) else None

    def consume(self, kind: type[H]) -> H | None:
        """Return the next recorded event if it is of that kind, and remove it."""
        found = self.peek(kind)
        if found is not None:
            self.recorded.popleft()
        return found

    def all_of(self, kind: type[H]) -> list[H]:
        """Return all recorded events of that kind, in order; they stay."""
        return [recorded for recorded in self.recorded if isinstance(recorded, kind)]

    def reopen(self) -> None:
        """Reopen a turn that stopped the run: the unavailable place is tried again, with the step's whole time."""
        self.ended = None
        began = False
        while self.recorded and isinstance(self.recorded[-1], _NEVER_BEGAN):
            self.recorded.pop()
            began = True
        last = self.recorded[-1] if self.recorded else None
        self.is_reopened = isinstance(last, CommandEnded) and last.outcome is Outcome.UNAVAILABLE
        if began and not any(isinstance(recorded, CommandStarted) for recorded in self.recorded):
            self.began_at = None

    @property
    def is_background(self) -> bool:
        first = self.peek(StepStarted)
        return bool(first and first.background)

    @property
    def is_always(self) -> bool:
        first = self.peek(StepStarted)
        return bool(first and first.always)

    @property
    def ended_with_group(self) -> bool:
        """Say whether it is of a background command that pccpipe ended with its group."""
        if not self.is_background or self.ended is None:
            return False
        return any(over.with_group for over in self.all_of(CommandEnded)[-1:])

    @property
    def attempts(self) -> int:
        """Return the number of attempts of a run step that has ended."""
        numbered = (TargetUnavailable, MayHaveBegun, CommandStarted, StepRetrying)
        least = 1 if self.recorded else 0
        most = max((recorded.attempt for recorded in self.recorded if isinstance(recorded, numbered)), default=least)
        begun = [recorded.attempt for recorded in self.recorded if isinstance(recorded, CommandStarted)]
        return most + len(begun) - len(set(begun))
