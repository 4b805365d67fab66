"""The fields of run.json, of its steps and of their attempts; see docs/run-record.md.

A field with a default came later: run.json of an earlier version may lack it.
"""

from __future__ import annotations

from msgspec import Struct

from pccpipe.outcome import Code, IsolationMode, Outcome, Place, Reason
from pccpipe.record.agent_events import AgentChanged
from pccpipe.record.events import StepDowngraded
from pccpipe.record.model_totals import ModelTotals
from pccpipe.target import ContainerSettings, Isolation
from pccpipe.values import Json

FORMAT = 1
"""The version of the format of run.json. It counts up only if a reader of the one before could misread the next."""


class AttemptEntry(Struct, frozen=True, kw_only=True):
    """One attempt at a step's command."""

    number: int
    outcome: Outcome | None
    command: str | None
    settings: ContainerSettings | None = None
    had: Isolation | None
    reason: Reason | None
    words: str
    hint: str
    exit_code: int | None
    signal: str | None
    out_of_memory: bool
    seconds: float | None
    stdout: str | None
    stderr: str | None
    message: str
    log_dropped: int = 0
    secrets: dict[str, Json] = {}
    code: Code | None = None
    exports: tuple[str, ...] = ()
    """The names of the variables that it exported for later steps."""


class ServiceEntry(Struct, frozen=True, kw_only=True):
    """A service beside a step or group."""

    name: str
    had: Isolation
    ready: bool
    running: bool
    ports: dict[str, int]
    """The loopback ports of the engine's machine, by the service's own."""
    secrets: list[str]
    loosened: list[str]
    exit_code: int | None
    out_of_memory: bool
    seconds: float | None
    with_owner: bool
    """True if pccpipe ended it after its owner."""
    message: str
    stdout: str
    stderr: str
    log_dropped: int


class StepEntry(Struct, frozen=True, kw_only=True):
    """One turn of a step."""

    path: str
    id: str
    kind: str | None
    name: str
    always: bool
    background: bool = False
    ready: bool = False
    """True once a background command was ready."""
    services: list[ServiceEntry] = []
    asked: Place | None
    had: Isolation | None
    outcome: Outcome | None
    ignored: bool
    started_at: str | None
    seconds: float | None
    round: int | None
    rounds: int | None
    attempts: list[AttemptEntry]
    exit_code: int | None
    reason: Reason | None
    words: str
    hint: str
    code: Code | None = None
    message: str
    result: Json
    result_path: str | None
    unattested: bool = False
    facts: dict[str, Json]
    model: dict[str, int | None] | None = None


class Question(Struct):
    """A request of a step's agent to a person."""

    step: str
    tried: str
    needed: str
    inputs: dict[str, Json]
    given: dict[str, Json] = {}
    above: dict[str, float] = {}
    """For a budget: the number that an answer must exceed, by key."""

    @property
    def missing(self) -> list[str]:
        """The keys that nobody has given yet."""
        return [key for key in self.inputs if key not in self.given]


class RunFile(Struct, frozen=True, kw_only=True):
    """The content of run.json."""

    format: int = FORMAT
    run_id: str
    pipeline: str
    pipeline_path: str
    project: str | None
    project_path: str | None = None
    isolation_mode: IsolationMode
    local: bool = False
    status: str
    outcome: Outcome | None
    message: str
    code: Code | None = None
    stopped: bool = False
    hint: str = ""
    exposed: bool = False
    accepted_fallbacks: tuple[str, ...] = ()
    downgraded: bool
    downgrades: list[StepDowngraded]
    agent_changes: list[AgentChanged] = []
    due: str | None = None
    warnings: list[str]
    questions: list[Question]
    cancelled_by: str | None
    cancelled_who: str = ""
    started_at: str | None
    ended_at: str | None
    seconds: float | None
    inputs: dict[str, Json]
    workspace: str
    host: str
    pid: int | None
    version: str
    last_seq: int
    unread: int
    model: ModelTotals | None = None
    artifacts: list[dict[str, Json]]
    steps: list[StepEntry]
