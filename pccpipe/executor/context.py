"""Hold what all steps of a run share, the position of the walk in their tree, and the outcome of a step."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from msgspec import Struct, field
from msgspec.structs import replace

from pccpipe.cancel import Cancel, Deadline, Halt
from pccpipe.executor.background import Background, Backgrounds
from pccpipe.executor.exports import Exports
from pccpipe.executor.exposure import Exposure
from pccpipe.executor.input_request import InputState
from pccpipe.executor.replay import Replay, Turn
from pccpipe.executor.scope import Scope
from pccpipe.outcome import Code, IsolationMode, Outcome, Place, Reason
from pccpipe.policy.folders import AllowedFolders
from pccpipe.record.events import Event, Happening
from pccpipe.record.exported import Exported
from pccpipe.record.logs import LogQuota
from pccpipe.record.room import Room
from pccpipe.secrets.mask import Masker
from pccpipe.secrets.prices import Prices
from pccpipe.secrets.proxy.proxy import Proxy
from pccpipe.secrets.values import Secrets
from pccpipe.service import ServiceHost
from pccpipe.spec.matrix import Leg
from pccpipe.spec.model import Build, Pipeline, Run, Step
from pccpipe.spec.project_model import Project
from pccpipe.target import Target
from pccpipe.values import Json
from pccpipe.workspace.base import Side, Workspace

STEP_LIMIT = 6 * 3600.0
"""Seconds that a step without a `timeout:` may take: every wait has a limit."""
ALWAYS_LIMIT = 300.0
"""The same for a step under `always:`, which runs while a person waits for the end of the run."""


class LeftOpen(Exception):
    """Another run or process took over the VM: this turn gets no end in the record, so a resume takes it again.

    Not a PccpipeError, which would end the step.
    """


class EventSink(Protocol):
    """The journal as the executor sees it: an event is on disk once `append` returns, except for `Output`."""

    def append(self, happening: Happening, when_synced: Callable[[], None] | None = None) -> Event:
        """Write an event; call `when_synced` once the event would survive a power cut."""
        ...


class Targets(Protocol):
    """The targets of a run; each is created at its first use."""

    def __getitem__(self, place: Place) -> Target: ...

    @property
    def had_vm(self) -> bool:
        """Say whether this process of the run has reached the VM."""
        ...

    @property
    def fenced(self) -> str | None:
        """Say in a sentence who took over the VM; None while this run has it."""
        ...

    def gives_sign(self, place: Place) -> bool:
        """Ask a place for a sign of life, and return whether one came. A negative answer may take long."""
        ...

    @property
    def vm_history(self) -> str | None:
        """Name, in a sentence, the earlier run whose agent's code ran on the VM itself; None if no record has one."""
        ...

    def remember_vm(self) -> None:
        """Record, for later runs, that an agent's code may run on the VM itself. Raises PccpipeError."""
        ...

    @property
    def services(self) -> ServiceHost:
        """Return the host of services. Raises `Unavailable` without an engine."""
        ...

    def leave(self) -> None:
        """Release the targets that were created, and leave all that is there."""
        ...

    def close(self) -> Sequence[str]:
        """Close the targets that were created; return a sentence for each thing that could not be removed."""
        ...


class Images(Protocol):
    """The engine's images, for the `build` action."""

    def build(self, build: Build, image: str, args: Mapping[str, str], log: Path, halt: Halt) -> bool:
        """Build an image and log the engine's output; return False if the image existed and that is enough.

        Raises `Unavailable` without an engine, `ActionError` when the build fails, `Halted`.
        """
        ...


class Services(Protocol):
    """The services of one step or group, which its steps use."""

    @property
    def network(self) -> str | None:
        """Return the network that the containers beside them join."""
        ...

    @property
    def failure(self) -> StepOutcome | None:
        """Return the outcome that a failed service gives to their owner; None if all is well."""
        ...


class Absence:
    """The moment since which the VM or its engine is unreachable: all steps that need it share one wait."""

    def __init__(self) -> None:
        self._since: float | None = None

    def since(self, moment: float) -> float:
        """Return when it became unreachable, on the monotonic clock: `moment`, if no earlier one is known."""
        self._since = moment if self._since is None else min(self._since, moment)
        return self._since

    @property
    def is_known(self) -> bool:
        """Say whether a step has found it unreachable."""
        return self._since is not None

    def end(self) -> None:
        """Note that it is back."""
        self._since = None


class RunContext(Struct, frozen=True):
    """The parts that all steps of a run share, from its beginning to its end."""

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
    readable: AllowedFolders = AllowedFolders(None)
    """The files of this machine that the pipeline may name."""
    backgrounds: Backgrounds = field(default_factory=Backgrounds)
    prices: Prices | None = None
    """Of models; None: those that come with pccpipe."""
    accepted_fallbacks: frozenset[str] = frozenset()
    """The ids of the steps that a person allowed to fall back also after an agent's code may have run."""
    upstreams: Mapping[str, str] = {}
    """Base URLs that replace the pipeline's, by the names of their secrets; see `pccpipe.api.run`."""

    @property
    def masker(self) -> Masker:
        return self.secrets.masker

    @property
    def exposure(self) -> Exposure:
        return self.replay.exposure

    @property
    def used(self) -> set[Place]:
        """Return the places, besides this machine, that the run has used in this process or an earlier one."""
        return self.replay.used

    def upstreams_of(self, path: str, attempt: int) -> dict[str, str]:
        """Return the replaced base URLs for an attempt of a step, by the names of their secrets."""
        step = quote(path, safe="")
        return {
            name: base.replace("{step}", step).replace("{attempt}", str(attempt))
            for name, base in self.upstreams.items()
        }

    def record_once(self, turn: Turn, happening: Happening) -> None:
        """Record an event of a step's turn, unless an earlier process recorded it."""
        if turn.consume(type(happening)) is None:
            self.journal.append(happening)

    def side_of(self, place: Place) -> Side:
        """Return the copy of the workspace that a command at `place` works in."""
        on_vm = self.project.isolation_mode is IsolationMode.VM and place is not Place.LOCAL
        return Side.VM if on_vm else Side.LOCAL


class Serials:
    """Numbers for the commands of each step, which make their names unique in the run. Safe from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}

    def next(self, step: str) -> int:
        with self._lock:
            self._counts[step] = self._counts.get(step, 0) + 1
            return self._counts[step]

    def skip(self, step: str, count: int) -> None:
        """Skip the numbers of the commands of an earlier process."""
        with self._lock:
            self._counts[step] = self._counts.get(step, 0) + count


class WalkPosition(Struct, frozen=True):
    """The position of the walk in the tree of steps: its path, the scope of expressions, the nearest deadline."""

    scope: Scope
    path: str = ""
    """The path of the group around: `iterate[2]`."""
    deadline: Deadline | None = None
    always: bool = False
    tolerated: bool = False
    """Inside of a group that the run ignores if it fails."""
    in_round: bool = False
    """Inside of a `repeat`, an agent that got an answer has its next turn in the next round."""
    background: Background | None = None
    """The turn of the step itself, if its command runs in the background."""
    beside: tuple[str, ...] = ()
    """The paths of the background commands of the groups around."""
    exports: Exports = field(default_factory=Exports)
    """The variables that earlier steps exported; a group inside has a copy."""
    services: tuple[Services, ...] = ()
    """The services beside the step and the groups around it, the outermost first."""
    forged: tuple[str, ...] = ()
    """The ids of the steps whose unattested results the conditions or matrices of the groups around read."""
    legs: int = 1
    """How many legs the matrices around make."""

    over: StepOutcome | None = None
    """The end of a group around that an earlier process saw: steps without a recorded turn get none."""

    def path_of(self, step_id: str) -> str:
        return f"{self.path}.{step_id}" if self.path else step_id

    def share_exports(self, step: Step, ended: StepOutcome) -> None:
        """Give the variables that a step exported to the later steps of its sequence; groups keep theirs inside."""
        if ended.exports and isinstance(step.body, Run) and not step.matrix:
            self.exports.add(step.id, ended.exports)

    def inside(self, path: str, scope: Scope | None = None) -> WalkPosition:
        return replace(self, path=path, scope=scope or self.scope, exports=self.exports.inside())


class LegEnd(Struct, frozen=True):
    """One leg of a matrix: its values, and how it ended; None: it had no turn."""

    values: Leg
    ended: StepOutcome | None


class StepOutcome(Struct, frozen=True):
    """The outcome of a step, of an attempt, or of a group; the walk records it as `StepEnded`."""

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
    """An earlier process of the run continued after it."""
    fails_as: str | None = None
    """The run's status if this ends the run: the `fails_as` of the step, or of one inside of it."""
    at: str | None = None
    """The id of the step that ended a sequence; empty if the message has it already."""
    input: InputState = InputState.NONE
    due: float | None = None
    """With `InputState.WANTED`: the run waits for a model until then, in seconds since the epoch."""
    exports: Exported | None = None
    """The variables that its last command exported."""
    logs: tuple[Path, Path] | None = None
    """The log files of the last command: of stdout and stderr."""
    legs: tuple[LegEnd, ...] = ()
    """Of a step with a matrix: its legs, in order."""

    def failed_with(self, exit_codes: Collection[int]) -> bool:
        """Say whether it failed because its command ended with one of the exit codes, and for no other reason."""
        is_by_code = self.outcome is Outcome.FAILED and self.code in {None, Code.OUTPUT_LOST}
        return is_by_code and self.exit_code in exit_codes


def not_named_by(key: str, failed: StepOutcome) -> str:
    """Say why `exit_codes` of `retry:` or `continue_on_error:` does not apply to a failure."""
    is_by_code = failed.exit_code is not None and failed.failed_with([failed.exit_code])
    return f"not in `{key}: exit_codes`" if is_by_code else f"no exit code, and `{key}:` names exit codes"


def halted(halt: Halt) -> StepOutcome:
    """Return the outcome of a step that was halted."""
    timed_out = halt.deadline is not None and not halt.cancel.requested
    return StepOutcome(Outcome.TIMED_OUT if timed_out else Outcome.CANCELLED, message=halt.message)
