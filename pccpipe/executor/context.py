"""What the walk through a run carries along: the run's parts, and the place in the tree where it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from msgspec import Struct, field
from msgspec.structs import replace

from pccpipe.cancel import Cancel, Deadline, Halt
from pccpipe.executor.exposure import Exposure
from pccpipe.executor.input_request import InputState
from pccpipe.executor.replay import Replay, Turn
from pccpipe.executor.scope import Scope
from pccpipe.outcome import Code, IsolationMode, Outcome, Place, Reason
from pccpipe.record.events import Event, Happening
from pccpipe.record.logs import LogQuota
from pccpipe.record.room import Room
from pccpipe.secrets.mask import Masker
from pccpipe.secrets.proxy.proxy import Proxy
from pccpipe.secrets.values import Secrets
from pccpipe.spec.model import Build, Pipeline, Project
from pccpipe.target import Target
from pccpipe.values import Json
from pccpipe.workspace.base import Side, Workspace

STEP_LIMIT = 6 * 3600.0
"""Seconds that a step may take which names no `timeout:`; no wait is without a limit."""
ALWAYS_LIMIT = 300.0
"""The same for a step under `always:`, which runs while a person waits for the end."""


class LeftOpen(Exception):
    """The VM was taken over from the run: the turn has no end in its record, for who goes on with the run.

    No PccpipeError, which would end the step.
    """


class EventSink(Protocol):
    """Where events go; what `append` returned is written (`Output` excepted)."""

    def append(self, happening: Happening, when_synced: Callable[[], None] | None = None) -> Event:
        """Write an event; `when_synced` is called once the event would outlive a power cut."""
        ...


class Targets(Protocol):
    """The run's targets; each is made when it is first asked for."""

    def __getitem__(self, place: Place) -> Target: ...

    @property
    def had_vm(self) -> bool:
        """Say whether this process of the run has reached the VM."""
        ...

    @property
    def fenced(self) -> str | None:
        """Say who took the VM over from this run, in a sentence; None while it is the run's."""
        ...

    def gives_sign(self, place: Place) -> bool:
        """Ask a place for a sign of life; whether one came. It may take long to say no."""
        ...

    @property
    def vm_history(self) -> str | None:
        """The earlier run whose agent's code ran on the VM itself, in a sentence; None if none is on record."""
        ...

    def remember_vm(self) -> None:
        """Put on record, for later runs, that an agent's code may run on the VM itself. Raises PccpipeError."""
        ...

    def leave(self) -> None:
        """Let go of those that were made, and leave them as they are."""
        ...

    def close(self) -> Sequence[str]:
        """Close those that were made; give what could not be removed, in words."""
        ...


class Images(Protocol):
    """The engine's images, for the `build` action."""

    def build(self, build: Build, image: str, args: Mapping[str, str], log: Path, halt: Halt) -> bool:
        """Build an image, with the engine's output into a log file; False if it was there already and that is enough.

        Raises `Unavailable` without an engine, `ActionError` when the build fails, `Halted`.
        """
        ...


class Absence:
    """Since when the VM, or its engine, has been away: one wait for all the steps that need it."""

    def __init__(self) -> None:
        self._since: float | None = None

    def since(self, moment: float) -> float:
        """Say when it went away, on the monotonic clock; `moment` if that is news."""
        self._since = moment if self._since is None else min(self._since, moment)
        return self._since

    @property
    def is_known(self) -> bool:
        """Say whether it is away, as far as anyone has seen."""
        return self._since is not None

    def end(self) -> None:
        """It is back."""
        self._since = None


class RunContext(Struct, frozen=True):
    """All that a run is made of, the same for its whole length."""

    run_id: str
    run_dir: Path
    pipeline: Pipeline
    project: Project
    targets: Targets
    workspace: Workspace
    images: Images
    journal: EventSink
    secrets: Secrets
    cancel: Cancel
    fallback_allowed: bool
    serials: Serials
    replay: Replay = field(default_factory=Replay)
    proxy: Proxy = field(default_factory=Proxy)
    absence: Absence = field(default_factory=Absence)
    logs: LogQuota = field(default_factory=LogQuota)
    room: Room = field(default_factory=Room)
    accepted_fallbacks: frozenset[str] = frozenset()
    """The ids of steps that a person let fall back also after an agent's code may have run."""

    @property
    def masker(self) -> Masker:
        return self.secrets.masker

    @property
    def exposure(self) -> Exposure:
        return self.replay.exposure

    @property
    def used(self) -> set[Place]:
        """The places other than this machine that the run has used, in this process or before."""
        return self.replay.used

    def record_once(self, turn: Turn, happening: Happening) -> None:
        """Bring an event of a step's turn to the journal, unless it is there already."""
        if turn.consume(type(happening)) is None:
            self.journal.append(happening)

    def side_of(self, place: Place) -> Side:
        """Which copy of the workspace a command at `place` works in."""
        on_vm = self.project.isolation_mode is IsolationMode.VM and place is not Place.LOCAL
        return Side.VM if on_vm else Side.LOCAL


class Serials:
    """Counts the commands of each step, for names that are unique within the run. Safe from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}

    def next(self, step: str) -> int:
        with self._lock:
            self._counts[step] = self._counts.get(step, 0) + 1
            return self._counts[step]

    def skip(self, step: str, count: int) -> None:
        """Leave out the numbers of commands that an earlier process had."""
        with self._lock:
            self._counts[step] = self._counts.get(step, 0) + count


class Position(Struct, frozen=True):
    """Where in the tree the walk is: the path so far, what expressions see, the nearest deadline."""

    scope: Scope
    path: str = ""
    """Of the group around: `iterate[2]`."""
    deadline: Deadline | None = None
    always: bool = False
    in_round: bool = False
    """Inside of a `repeat`: an agent that was helped has its next turn in the next round."""
    forged: tuple[str, ...] = ()
    """The steps whose unattested results the conditions of the groups around read."""

    def path_of(self, step_id: str) -> str:
        return f"{self.path}.{step_id}" if self.path else step_id

    def inside(self, path: str, scope: Scope | None = None) -> Position:
        return replace(self, path=path, scope=scope or self.scope)


class StepOutcome(Struct, frozen=True):
    """How a body ended; the walk makes `StepEnded` of it."""

    outcome: Outcome
    exit_code: int | None = None
    reason: Reason | None = None
    code: Code | None = None
    message: str = ""
    result: Json = None
    result_path: str | None = None
    unattested: bool = False
    """A command on the VM could have forged the result."""
    ignored: bool = False
    """An earlier process of the run went on after it."""
    fails_as: str | None = None
    """The run's status if this ends the run; from the step inside that failed, if it names one."""
    at: str | None = None
    """The id of the step that ended a sequence; empty if the message names it."""
    input: InputState = InputState.NONE
    logs: tuple[Path, Path] | None = None
    """Of the last command: stdout's and stderr's."""


def halted(halt: Halt) -> StepOutcome:
    """How a step ends that was halted."""
    timed_out = halt.deadline is not None and not halt.cancel.requested
    return StepOutcome(Outcome.TIMED_OUT if timed_out else Outcome.CANCELLED, message=halt.message)
