"""The events of a run. The journal keeps them; every view, and run.json, is made from them.

`Output` and `Activity` are not kept in the journal: files beside it are their record. Times are seconds since the
epoch, durations are seconds. A step is named by its path: `iterate[2].build`, `unit[node=20]`, with an attempt from 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from msgspec import Struct, field

from pccpipe.outcome import Code, Outcome, Place, Reason, Stream
from pccpipe.record.agent_events import (
    Activity,
    AgentChanged,
    ModelLimited,
    RepairAsked,
    SessionKept,
    Stalled,
    StepWaiting,
)
from pccpipe.record.agent_events import (
    ModelUsed as ModelUsed,
)
from pccpipe.record.agent_report import AgentReport
from pccpipe.record.exported import Exported
from pccpipe.record.kind import EventKind
from pccpipe.record.run_events import (
    AlwaysStarted,
    Cancelling,
    RunEnded,
    RunQueued,
    RunResumed,
    RunStarted,
    RunStopped,
    RunWaiting,
)
from pccpipe.target import ContainerSettings, Isolation, Token
from pccpipe.values import Json


class StepStarted(EventKind, frozen=True):
    """A step's turn came, and its condition held."""

    step: str
    kind: str
    """`run`, `upload`, `download`, `diff`, `remove`, `build`, `repeat`, `parallel`, `group`, `matrix`."""
    asked: Place | None = None
    name: str = ""
    always: bool = False
    timeout: float | None = None
    """Its time limit in seconds, of a step with `agent:`."""
    legs: tuple[Mapping[str, str | int | float | bool], ...] | None = None
    """The values of each leg of a matrix, where an expression gave some of them: a resumed run has the same."""
    background: bool = False
    """True if its command runs beside the next steps, until its group ends."""


class SecretsGiven(EventKind, frozen=True):
    """The way in which the secrets of an attempt reach its command; recorded before it begins."""

    step: str
    attempt: int
    modes: Mapping[str, Json]
    """`direct` or `proxy`, by the secret's name."""
    tokens: Mapping[str, Json] = field(default_factory=dict)
    """The SHA-256 of each token for the proxy, by the name of its variable: a resumed run recognizes it by that."""


class MayHaveBegun(EventKind, frozen=True):
    """A container, or an agent elsewhere, is about to begin. Synced before that.

    Unless `TargetUnavailable` of the same attempt follows, code of an agent may have run in that place: the run is
    exposed.
    """

    step: str
    attempt: int
    place: Place
    consented: bool = False
    """It came too late to be safe, and a person allowed it: others may not follow it there."""


class CommandStarted(EventKind, frozen=True):
    """A command began on a target, with the isolation that it really has."""

    step: str
    attempt: int
    command: str
    had: Isolation
    stdout: str
    """The log's path in the run's folder; `stderr` likewise."""
    stderr: str
    token: Token = field(default_factory=dict)
    settings: ContainerSettings | None = None
    """The settings that its container was asked for; `had` has the result."""
    as_login: bool = False
    """True if it runs on the VM as the login, which owns pccpipe's files there."""
    agent: str = ""
    """The name of its agent under `agents:`, for a step with `agent:`."""
    session: str = ""
    """The id of the agent's session that it continues; empty if it starts cold."""


class CommandEnded(EventKind, frozen=True):
    """One attempt is over."""

    step: str
    attempt: int
    outcome: Outcome
    exit_code: int | None = None
    signal: str | None = None
    out_of_memory: bool = False
    seconds: float = 0.0
    message: str = ""
    """The failure in a sentence: a rule of the result's schema, a limit."""
    code: Code | None = None
    reason: Reason | None = None
    """Set when the outcome is `unavailable`: its place cannot be used any more, though the command is over."""
    log_dropped: int = 0
    """Bytes of its output that its logs leave out."""
    agent: AgentReport | None = None
    """The work of its agent, for a step with `agent:`."""
    exports: Exported | None = None
    """The variables that it exported for later steps."""
    session: SessionKept | None = None
    """The agent's session that it left; None if it left none, and an earlier one still counts."""
    with_group: bool = False
    """True of a background command that pccpipe ended with its group."""


class ServiceStarted(EventKind, frozen=True):
    """A service of a step or group began, before the step's own work."""

    step: str
    """The path of its owner."""
    service: str
    had: Isolation
    stdout: str
    """The log's path in the run's folder; `stderr` likewise."""
    stderr: str
    token: Token = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    """The names of the secrets that it got."""
    loosened: tuple[str, ...] = ()
    """Its settings that are looser than those of a step's container."""


class ServiceReady(EventKind, frozen=True):
    """A service is ready; the work of its owner begins after the last of them."""

    step: str
    service: str
    seconds: float = 0.0
    ports: Mapping[str, int] = field(default_factory=dict)
    """The loopback ports of the engine's machine, by the service's own."""


class ServiceEnded(EventKind, frozen=True):
    """A service is over."""

    step: str
    service: str
    seconds: float = 0.0
    exit_code: int | None = None
    """None if nobody knows."""
    out_of_memory: bool = False
    message: str = ""
    with_owner: bool = False
    """True if pccpipe ended it after its owner."""
    log_dropped: int = 0
    """Bytes of its output that its logs leave out."""


class BackgroundReady(EventKind, frozen=True):
    """A background command is ready: the next step begins."""

    step: str
    attempt: int
    seconds: float = 0.0
    """The time that its check took."""


SERVICES = 0
"""The attempt of a `TargetUnavailable` of a step's services: it says nothing about the step's own attempts."""


class TargetUnavailable(EventKind, frozen=True):
    """A place was unavailable; nothing began there."""

    step: str
    attempt: int
    """0: of the services beside the step."""
    asked: Place
    reason: Reason
    words: str
    hint: str = ""
    settings: ContainerSettings | None = None
    """The settings that a container was asked for."""


class StepDowngraded(EventKind, frozen=True):
    """A step continues with less isolation than its `on:` asked for."""

    step: str
    asked: Place
    had: Place
    reason: Reason
    words: str


class StepRetrying(EventKind, frozen=True):
    step: str
    attempt: int
    """The number of the next attempt."""
    attempts: int
    after: Outcome
    wait: float
    exit_code: int | None = None
    """The exit code of the attempt that failed, if `retry: exit_codes` names it."""


class RoundStarted(EventKind, frozen=True):
    """A `repeat` begins a round, from 1."""

    step: str
    round: int
    of: int


class ActionDone(EventKind, frozen=True):
    """A built-in action is done. `facts` has counts and names to show: `files`, `bytes`, `method`, `missing`, ..."""

    step: str
    action: str
    facts: Mapping[str, Json]


class StepEnded(EventKind, frozen=True):
    step: str
    outcome: Outcome
    seconds: float
    exit_code: int | None = None
    reason: Reason | None = None
    """Set when the outcome is `unavailable`."""
    message: str = ""
    result: Json = None
    result_path: str | None = None
    ignored: bool = False
    """It did not succeed, and `continue_on_error` lets the run continue."""
    code: Code | None = None
    """Set when the outcome is `failed` for a reason that programs branch on; `output_lost` with any outcome."""
    unattested: bool = False
    """True if a command on the VM could have forged its result."""


class GroupAlwaysStarted(EventKind, frozen=True):
    """The steps of a group are over, with this outcome; the steps under its own `always:` begin."""

    step: str
    outcome: Outcome
    message: str = ""
    code: Code | None = None
    reason: Reason | None = None
    fails_as: str | None = None
    """The run's status if this ends the run, by the `fails_as` of a step inside."""


class InputAsked(EventKind, frozen=True):
    """The agent of an ended step asks a person for input; or a step whose budget is used up asks for a higher one."""

    step: str
    tried: str
    needed: str
    inputs: Mapping[str, Json]
    """Labels of the inputs, by key."""
    above: Mapping[str, float] = field(default_factory=dict)
    """For a budget: the number that an answer must exceed, by key: `budget` (tokens) or `usd`."""


class InputGiven(EventKind, frozen=True):
    """A person's answers, by key; some of them or all."""

    step: str
    values: Mapping[str, Json]
    raises: Mapping[str, float] = field(default_factory=dict)
    """The step's budget from now on, by key."""


class WorkspaceCopied(EventKind, frozen=True):
    """A step got its own copy of the workspace (`workspace: own`)."""

    step: str
    """The step whose command needed it first: the one with the key, or one inside."""
    place: Place
    folder: str
    """The copy, on the machine of that place."""
    seconds: float


class Warned(EventKind, frozen=True):
    """A warning for a person; it stops nothing."""

    message: str
    step: str | None = None


class Output(EventKind, frozen=True):
    """A piece of a command's output as text, masked; delivered live, not journaled."""

    step: str
    stream: Stream
    text: str


LiveEvent: TypeAlias = Output | Activity
"""The events that the journal does not keep: their number is 0."""

Happening: TypeAlias = (
    RunStarted
    | RunResumed
    | StepStarted
    | SecretsGiven
    | ModelUsed
    | MayHaveBegun
    | CommandStarted
    | CommandEnded
    | BackgroundReady
    | ServiceStarted
    | ServiceReady
    | ServiceEnded
    | RepairAsked
    | TargetUnavailable
    | StepDowngraded
    | StepRetrying
    | ModelLimited
    | AgentChanged
    | StepWaiting
    | Stalled
    | RoundStarted
    | ActionDone
    | StepEnded
    | GroupAlwaysStarted
    | InputAsked
    | InputGiven
    | RunWaiting
    | RunStopped
    | RunQueued
    | Cancelling
    | AlwaysStarted
    | WorkspaceCopied
    | Warned
    | RunEnded
    | Output
    | Activity
)


class Event(Struct, frozen=True):
    """A happening, its number in the run (from 1; 0 for Output and Activity), and its time."""

    seq: int
    time: float
    what: Happening

    def to_json(self) -> dict[str, Json]:
        """Return the event as schemas/event.schema.json describes it."""
        from pccpipe.record.codec import event_fields

        return event_fields(self)
