"""What a run had done before the process that ran it was killed: from its events, turn by turn.

A resumed run walks its pipeline from the beginning, as the first process did. Each turn of a step takes what the events
say of it instead of doing it again; where they end, the walk goes on by itself. So there is one walk, and no second
description of a run's position that could disagree with the record.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import TypeVar

from msgspec import Struct, field

from pccpipe.cancel import Deadline
from pccpipe.executor.exposure import Exposure
from pccpipe.outcome import Outcome, Place
from pccpipe.record.events import (
    ActionDone,
    AlwaysStarted,
    Cancelling,
    CommandEnded,
    CommandStarted,
    Event,
    Happening,
    InputAsked,
    InputGiven,
    MayHaveBegun,
    ModelUsed,
    RoundStarted,
    RunQueued,
    RunResumed,
    RunStarted,
    RunStopped,
    RunWaiting,
    SecretsGiven,
    StepDowngraded,
    StepEnded,
    StepRetrying,
    StepStarted,
    TargetUnavailable,
)
from pccpipe.record.step_path import parent, rounds_left_out
from pccpipe.secrets.proxy.grant import Pool
from pccpipe.values import Json

_NEVER_BEGAN = (TargetUnavailable, StepRetrying, StepDowngraded, MayHaveBegun)
LEAST_TIME = 10.0
"""Seconds that a step has at least after a resume: its end may be there already, to be read."""

H = TypeVar("H")


class Turn(Struct):
    """One turn of a step: what was noted of it and not yet taken. Empty if the turn is a new one."""

    recorded: deque[Happening] = field(default_factory=deque)
    began_at: float | None = None
    """Seconds since the epoch."""
    ended: StepEnded | None = None
    is_input_requested: bool = False
    """Its agent's request for help is noted."""
    answers: dict[str, Json] = field(default_factory=dict)
    given: list[SecretsGiven] = field(default_factory=list)
    used: ModelUsed | None = None
    is_reopened: bool = False
    """Its last command is over, and its place could not be used then; there is to be another one."""
    due: deque[float] = field(default_factory=deque)
    """When each next try was due, in seconds since the epoch."""
    is_past: bool = False
    """The group around went on after it: to its next try, or its next round."""

    def peek(self, kind: type[H]) -> H | None:
        """What was noted next, if it is of that kind."""
        head = self.recorded[0] if self.recorded else None
        return head if isinstance(head, kind) else None

    def consume(self, kind: type[H]) -> H | None:
        """The same, taken away."""
        found = self.peek(kind)
        if found is not None:
            self.recorded.popleft()
        return found

    def all_of(self, kind: type[H]) -> list[H]:
        """All of that kind that is noted, in order; it stays."""
        return [recorded for recorded in self.recorded if isinstance(recorded, kind)]

    def reopen(self) -> None:
        """The run was stopped because of this turn: what was unavailable is tried again, with its whole time."""
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
    def attempts(self) -> int:
        """How many attempts a run step that has ended made."""
        numbered = (TargetUnavailable, MayHaveBegun, CommandStarted, StepRetrying)
        least = 1 if self.recorded else 0
        most = max((recorded.attempt for recorded in self.recorded if isinstance(recorded, numbered)), default=least)
        begun = [recorded.attempt for recorded in self.recorded if isinstance(recorded, CommandStarted)]
        return most + len(begun) - len(set(begun))


class Replay:
    """Hands out the turns of each step in the order in which they came. Safe from many threads."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._lock = threading.Lock()
        self._turns: dict[str, deque[Turn]] = {}
        self.began_at: float | None = None
        """When the run began, in seconds since the epoch; None for a run that begins now."""
        self.always: AlwaysStarted | None = None
        self.cancelled_by: str | None = None
        self.places: set[Place] = set()
        """Where commands have begun: something of them may still be there."""
        self.used: set[Place] = set()
        """Which places other than this machine the run has had."""
        self.changed_images: set[str] = set()
        """Of which it was said that they are not what `provision` left."""
        self.login_began = False
        """Whether a command began on the VM as the account that owns pccpipe's files there."""
        self.exposure = Exposure()
        self.tells_agents = False
        """Whether the record says of each agent that it may begin before it does."""
        self._waiting_since: float | None = None
        self._uploading: set[str] = set()
        """Uploads of which nothing says yet whether they reached the VM."""
        self._pools: dict[str, Pool] = {}
        self._model_used: dict[int, tuple[Turn, ModelUsed]] = {}
        for event in events:
            self._apply(event)
        self.used |= self.exposure.places
        self.was_paused = self._waiting_since is not None
        """Whether it was stopped, or waited for a person, without a process."""
        self._go_on(time.time())

    @property
    def is_empty(self) -> bool:
        """Whether the run begins now."""
        return self.began_at is None

    def knows(self, path: str) -> bool:
        """Whether a turn of the step was noted that is not yet handed out."""
        with self._lock:
            return bool(self._turns.get(path))

    def next_turn(self, path: str) -> Turn:
        """The next turn of the step: as noted, or a new one."""
        with self._lock:
            turns = self._turns.get(path)
            return turns.popleft() if turns else Turn()

    def pool(self, path: str, limit: int | None) -> Pool:
        """The budget that all turns of a step share; each leg of a matrix has its own."""
        step = rounds_left_out(path)
        with self._lock:
            if step not in self._pools:
                turns = (used for _, used in self._model_used.values() if rounds_left_out(used.step) == step)
                self._pools[step] = Pool(used=sum(map(_tokens, turns)))
            pool = self._pools[step]
            pool.limit = limit
            return pool

    def _apply(self, event: Event) -> None:
        self.exposure.apply(event.what)
        self._apply_upload(event.what)
        match event.what:
            case RunStarted(project_identity=identity):
                self.began_at = event.time
                self.tells_agents = identity is not None
            case StepStarted(step=step) as started:
                self._open(step).recorded.append(started)
                self._open(step).began_at = self._open(step).began_at or event.time
            case StepEnded(step=step) as ended:
                self._open(step).ended = ended
            case SecretsGiven() as given:
                self._open(given.step).given.append(given)
            case ModelUsed() as used:
                turn = self._open(used.step)
                turn.used = used
                self._model_used[id(turn)] = (turn, used)
            case CommandStarted() as started:
                self.places.add(started.had.place)
                self.used.add(started.had.place)
                if started.had.image and started.had.image_provisioned:
                    self.changed_images.add(started.had.image)
                self.login_began = self.login_began or started.as_login
                self._open(started.step).recorded.append(started)
                self._open(started.step).is_reopened = False
            case MayHaveBegun() as may:
                self.places.add(may.place)
                self._open(may.step).recorded.append(may)
            case RunQueued() | ActionDone(action="upload", facts={"method": "tar"}):
                self.used.add(Place.VM)
            case RoundStarted() | StepRetrying() as again:
                self._pass_by(again.step)
                self._open(again.step).recorded.append(again)
                if isinstance(again, StepRetrying):
                    self._open(again.step).due.append(event.time + again.wait)
            case TargetUnavailable() | StepDowngraded() | CommandEnded() as recorded:
                self._open(recorded.step).recorded.append(recorded)
            case InputAsked(step=step):
                self._turns[step][-1].is_input_requested = True
            case InputGiven(step=step, values=values):
                self._turns[step][-1].answers |= values
            case RunWaiting():
                self._waiting_since = event.time
            case RunStopped():
                self._waiting_since = event.time
                self._reopen()
            case RunResumed():
                self._go_on(event.time)
                for turns in self._turns.values():
                    if not turns[-1].ended and turns[-1].began_at is None:
                        turns[-1].began_at = event.time
            case AlwaysStarted() as always:
                self.always = always
            case Cancelling(by=by):
                self.cancelled_by = by
            case _:
                pass

    def _apply_upload(self, what: Happening) -> None:
        match what:
            case StepStarted(kind="upload"):
                self._uploading.add(what.step)
            case TargetUnavailable() | ActionDone() | StepEnded():
                self._uploading.discard(what.step)
            case _:
                pass

    def _go_on(self, at: float) -> None:
        """Another process goes on with the run, from what was noted up to here."""
        if self._uploading:
            # The process before was killed in it, and had the VM then, or was on its way there.
            self.used.add(Place.VM)
        if self.exposure.is_exposed and self.always is None:
            self._reopen()  # the process before may have been killed when it was about to stop the run
        self._leave_out_waiting(at)

    def _leave_out_waiting(self, until: float) -> None:
        """What waits for a person has no less time for that: it is as if it had begun later."""
        if self._waiting_since is None or self.began_at is None:
            return
        waited = until - self._waiting_since
        self._waiting_since = None
        self.began_at += waited
        for turns in self._turns.values():
            if turns and not turns[-1].ended and turns[-1].began_at is not None:
                turns[-1].began_at += waited

    def _reopen(self) -> None:
        """Try again what ended the run, and what was under way beside it; not what the run went on without."""
        stopped = [path for path, turns in self._turns.items() if self._may_reopen(path, turns[-1])]
        for path in stopped:
            self._turns[path][-1].reopen()

    def _may_reopen(self, path: str, turn: Turn) -> bool:
        ended = turn.ended
        if not ended or ended.outcome is not Outcome.UNAVAILABLE or ended.ignored or turn.is_past:
            return False
        above = parent(path)
        while above is not None:
            around = self._turns.get(above)
            end = around[-1].ended if around else None
            if end and (end.ignored or end.outcome is not Outcome.UNAVAILABLE):
                return False
            above = parent(above)
        return True

    def _pass_by(self, group: str) -> None:
        """A group goes on to its next try or round: what ended in it is no longer what it ends by."""
        for path, turns in self._turns.items():
            if path.startswith((f"{group}.", f"{group}[")) and turns[-1].ended:
                turns[-1].is_past = True

    def _open(self, step: str) -> Turn:
        """The turn that has not ended, or one more."""
        turns = self._turns.setdefault(step, deque())
        if not turns or turns[-1].ended:
            turns.append(Turn())
        return turns[-1]


def deadline_since(began_at: float | None, seconds: float, owner: str) -> Deadline:
    """The deadline of something that may take so many seconds from when it began; None: it begins now."""
    gone = time.time() - began_at if began_at is not None else 0.0
    # A clock that was set back must not give more time than there is.
    left = seconds if began_at is None else min(seconds, max(seconds - gone, LEAST_TIME))
    return Deadline(time.monotonic() + left, owner, seconds)


def _tokens(used: ModelUsed) -> int:
    return used.input_tokens + used.output_tokens + used.estimated_tokens + used.reserved_tokens
