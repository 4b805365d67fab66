"""Replay what a run did before its process was killed, turn by turn, from its events.

A resumed run walks its pipeline from the beginning, as the first process did. Each turn of a step consumes its recorded
events instead of doing the work again; after the last of them, the walk continues with new work. So there is one walk,
and no second description of a run's position that could contradict the record.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import TypeAlias, assert_never

from msgspec.structs import replace

from pccpipe.executor.accounts import Raised, RunAccounts
from pccpipe.executor.exposure import Exposure
from pccpipe.executor.turn import ServiceTurn
from pccpipe.executor.turn import Turn as Turn
from pccpipe.outcome import Code, Outcome, Place
from pccpipe.record.agent_events import AgentChanged, ModelLimited, ModelUsed, RepairAsked, SessionKept, StepWaiting
from pccpipe.record.events import (
    SERVICES,
    ActionDone,
    BackgroundReady,
    CommandEnded,
    CommandStarted,
    Event,
    GroupAlwaysStarted,
    Happening,
    InputAsked,
    InputGiven,
    MayHaveBegun,
    RoundStarted,
    SecretsGiven,
    ServiceEnded,
    ServiceReady,
    ServiceStarted,
    StepDowngraded,
    StepEnded,
    StepRetrying,
    StepStarted,
    TargetUnavailable,
)
from pccpipe.record.run_events import (
    AlwaysStarted,
    Cancelling,
    RunQueued,
    RunResumed,
    RunStarted,
    RunStopped,
    RunWaiting,
)
from pccpipe.record.step_path import parent, rounds_left_out

_OF_TURN = (
    TargetUnavailable,
    StepDowngraded,
    CommandEnded,
    BackgroundReady,
    RepairAsked,
    AgentChanged,
    StepWaiting,
    GroupAlwaysStarted,
)
"""Events that a turn consumes in their order, as others do whose replay needs more than that."""

SessionKey: TypeAlias = tuple[str, str, str]
"""The step, its `session:`, and the agent: no other step or agent continues the session."""


def session_key(step: str, attempt: int, kept: SessionKept) -> SessionKey:
    """Return the key of a session; one without a name is its attempt's own."""
    return (rounds_left_out(step) if kept.name else f"{step} {attempt}", kept.name, kept.agent)


class Replay:
    """The recorded turns of each step, handed out in their order. Safe from many threads."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._lock = threading.Lock()
        self._turns: dict[str, deque[Turn]] = {}
        self.began_at: float | None = None
        """The time when the run began, in seconds since the epoch; None for a run that begins now."""
        self.always: AlwaysStarted | None = None
        self.cancelled_by: str | None = None
        self.places: set[Place] = set()
        """Places where commands began: processes or files of them may still be there."""
        self.used: set[Place] = set()
        """Places, besides this machine, that the run has used."""
        self.changed_images: set[str] = set()
        """Images for which the run warned that they differ from those of `provision`."""
        self.login_began = False
        """Whether a command began on the VM as the login, which owns pccpipe's files there."""
        self.exposure = Exposure()
        self.tells_agents = False
        """Whether the record has `may_have_begun` for each agent before it begins."""
        self.sessions: dict[SessionKey, SessionKept] = {}
        """The agents' sessions that the next turns continue."""
        self.due: float | None = None
        """The time from which `resume --due` continues the run, if it waited for a model until now."""
        self._waiting_since: float | None = None
        self._uploading: set[str] = set()
        """Uploads that may or may not have reached the VM."""
        self._continued: Counter[str] = Counter()
        """The attempts and rounds of each group so far."""
        self._raised: dict[str, Raised] = {}
        self._model_used: dict[int, tuple[Turn, ModelUsed]] = {}
        for event in events:
            self._apply(event)
        self.used |= self.exposure.places
        self.accounts = RunAccounts((used for _, used in self._model_used.values()), self._raised)
        self.was_paused = self._waiting_since is not None
        """Whether it was stopped, or waited for a person or a model, with no process."""
        self._continue_run(time.time())

    @property
    def is_empty(self) -> bool:
        """Say whether the run begins now."""
        return self.began_at is None

    def knows(self, path: str) -> bool:
        """Say whether the record has a turn of the step that was not handed out."""
        return self.coming(path) is not None

    def coming(self, path: str) -> Turn | None:
        """Return the turn of the step that comes next in the record; None if it has no more."""
        with self._lock:
            turns = self._turns.get(path)
            return turns[0] if turns else None

    def next_turn(self, path: str) -> Turn:
        """Return the next turn of the step: the recorded one, or a new one."""
        with self._lock:
            turns = self._turns.get(path)
            return turns.popleft() if turns else Turn()

    def _apply(self, event: Event) -> None:
        self.exposure.apply(event.what)
        self._apply_upload(event.what)
        self._apply_session(event.what)
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
                self._command_started(started)
            case ServiceStarted() | ServiceReady() | ServiceEnded() as of_service:
                self._apply_service(of_service)
            case MayHaveBegun() as may:
                self.places.add(may.place)
                self._open(may.step).recorded.append(may)
            case RunQueued() | ActionDone(action="upload", facts={"method": "tar"}):
                self.used.add(Place.VM)
            case TargetUnavailable(step=step, attempt=attempt) if attempt == SERVICES:
                self._services_away(step)
            case RoundStarted() | StepRetrying() as again:
                self._continue_group(again.step)
                self._open(again.step).recorded.append(again)
                if isinstance(again, StepRetrying):
                    self._open(again.step).due.append(event.time + again.wait)
            case ModelLimited() as limited:
                self._open(limited.step).limits[limited.attempt] = limited
            case InputAsked() | InputGiven() as input_:
                self._apply_input(input_)
            case RunWaiting(due=due):
                self._waiting_since, self.due = event.time, due
            case RunStopped():
                self._waiting_since = event.time
                self._reopen()
            case RunResumed():
                self.due = None
                self._continue_run(event.time)
                for turns in self._turns.values():
                    if not turns[-1].ended and turns[-1].began_at is None:
                        turns[-1].began_at = event.time
            case AlwaysStarted():
                self.always = event.what
            case Cancelling(by=by):
                self.cancelled_by = by
            case _ if isinstance(event.what, _OF_TURN):
                if isinstance(event.what, CommandEnded) and event.what.code is not Code.MODEL_LIMITED:
                    self._open(event.what.step).limits.pop(event.what.attempt, None)
                self._open(event.what.step).recorded.append(event.what)
            case _:
                pass

    def _command_started(self, started: CommandStarted) -> None:
        self.places.add(started.had.place)
        self.used.add(started.had.place)
        if started.had.image and started.had.image_provisioned:
            self.changed_images.add(started.had.image)
        self.login_began = self.login_began or started.as_login
        self._open(started.step).recorded.append(started)
        self._open(started.step).is_reopened = False

    def _apply_service(self, what: ServiceStarted | ServiceReady | ServiceEnded) -> None:
        services = self._open(what.step).services
        match what:
            case ServiceStarted():
                first = next(iter(services), what.service)
                self._open(what.step).service_begins += what.service == first
                services[what.service] = ServiceTurn(what)
                self.places.add(Place.CONTAINER)
                self.used.add(Place.CONTAINER)
            case ServiceReady():
                services[what.service].ready = True
            case ServiceEnded():
                services[what.service].ended = True
            case _:
                assert_never(what)

    def _services_away(self, step: str) -> None:
        """Give a turn whose services never began its whole time again."""
        turn, inside = self._open(step), (f"{step}.", f"{step}[")
        has_begun = len(turn.recorded) > 1 or turn.services or any(path.startswith(inside) for path in self._turns)
        if not has_begun:
            turn.began_at = None

    def _apply_input(self, what: InputAsked | InputGiven) -> None:
        turn = self._turns[what.step][-1]
        match what:
            case InputAsked(above=above) if above:
                turn.recorded.append(what)
            case InputAsked():
                turn.is_input_requested = True
            case InputGiven(raises=raises) if raises:
                turn.recorded.append(what)
                if turn.used:
                    turn.used = replace(turn.used, refused=0, refused_by="")
                raised = self._raised.setdefault(rounds_left_out(what.step), Raised())
                raised.tokens = max(raised.tokens, int(raises.get("budget", 0)))
                raised.usd = max(raised.usd, float(raises.get("usd", 0.0)))
            case InputGiven(values=values):
                turn.answers |= values
            case _:
                assert_never(what)

    def _apply_upload(self, what: Happening) -> None:
        match what:
            case StepStarted(kind="upload"):
                self._uploading.add(what.step)
            case TargetUnavailable() | ActionDone() | StepEnded():
                self._uploading.discard(what.step)
            case _:
                pass

    def _apply_session(self, what: Happening) -> None:
        if isinstance(what, CommandEnded) and what.session:
            self.sessions[session_key(what.step, what.attempt, what.session)] = what.session

    def _continue_run(self, at: float) -> None:
        """Continue the run with another process, from the events so far."""
        if self._uploading:
            # The earlier process was killed in an upload, so it may have reached the VM.
            self.used.add(Place.VM)
        if self.exposure.is_exposed and self.always is None:
            self._reopen()  # the earlier process may have been killed just before it stopped the run
        self._reopen_backgrounds()
        self._shift_by_wait(at)

    def _shift_by_wait(self, until: float) -> None:
        """Add the time that the run waited without a process to the start of each turn under way: it does not count."""
        if self._waiting_since is None or self.began_at is None:
            return
        waited = until - self._waiting_since
        self._waiting_since = None
        self.began_at += waited
        for turns in self._turns.values():
            if turns and not turns[-1].ended and turns[-1].began_at is not None:
                turns[-1].began_at += waited

    def _reopen(self) -> None:
        """Reopen the turns that ended the run, and those under way beside them; not those that the run ignored."""
        stopped = [path for path, turns in self._turns.items() if self._may_reopen(path, turns[-1])]
        for path in stopped:
            self._turns[path][-1].reopen()

    def _reopen_backgrounds(self) -> None:
        """Reopen each background command that ended with its group although the group goes on: it begins again."""
        last = {path: turns[-1] for path, turns in self._turns.items()}
        ended = {path: turn for path, turn in last.items() if turn.ended_with_group}
        if not ended:
            return
        going_on = {(parent(path), turn.epoch, turn.is_always) for path, turn in last.items() if _goes_on(turn)}
        for path, turn in ended.items():
            if (parent(path), turn.epoch, turn.is_always) in going_on:
                turn.ended, turn.is_reopened = None, True

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

    def _continue_group(self, group: str) -> None:
        """Note that a group continues with its next attempt or round: turns that ended in it no longer decide."""
        for path, turns in self._turns.items():
            if path.startswith((f"{group}.", f"{group}[")) and turns[-1].ended:
                turns[-1].is_past = True
        self._continued[group] += 1

    def _open(self, step: str) -> Turn:
        """Return the turn that has not ended, or add one."""
        turns = self._turns.setdefault(step, deque())
        if not turns or turns[-1].ended:
            turns.append(Turn(epoch=sum(self._continued[around] for around in _around(step))))
        return turns[-1]


def _goes_on(turn: Turn) -> bool:
    """Say whether a step beside background commands has not ended, or waits for a person's answer."""
    return not turn.is_background and not turn.is_past and (turn.ended is None or turn.is_input_requested)


def _around(path: str) -> Iterator[str]:
    """Yield the paths of the groups around a step."""
    above = parent(path)
    while above is not None:
        yield above
        above = parent(above)
