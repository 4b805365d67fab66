"""The events of a step's agents, and of their providers' limits; events.py has the others."""

from __future__ import annotations

from msgspec import Struct

from pccpipe.outcome import ActionKind
from pccpipe.record.kind import EventKind


class SessionKept(Struct, frozen=True):
    """An agent's session as an attempt left it: the next turn of the step, with the same agent, continues it."""

    name: str
    """As `session:` names it; empty for a session that only a repair may continue."""
    agent: str
    id: str = ""
    """The agent's own id of it."""
    file: str = ""
    """The archive of its transcripts, by its path in the record; empty if the next turn must start cold."""


class RepairAsked(EventKind, frozen=True):
    """An agent's result was refused, and the agent is asked again in the same attempt."""

    step: str
    attempt: int
    repair: int
    """From 1."""
    of: int
    message: str
    """The errors of the result."""


class ModelUsed(EventKind, frozen=True):
    """A step's use of a model in this turn so far, by the proxy's account; the last one counts."""

    step: str
    calls: int
    refused: int
    """Calls after `max_tokens` or the budget was used up."""
    input_tokens: int
    cached_input_tokens: int
    """Of `input_tokens`."""
    output_tokens: int
    estimated_tokens: int
    """By their size, for answers without a count."""
    max_tokens: int | None = None
    reserved_tokens: int = 0
    """For calls in progress; a process that is killed meanwhile has used them."""
    budget_tokens: int | None = None
    """The most tokens that all turns of the step may use."""
    budget_used: int = 0
    """The tokens of it that they used."""
    cache_write_tokens: int = 0
    """Of `input_tokens`."""
    usd: float | None = None
    """The price by estimate; None if a model without a price was called."""
    reserved_usd: float = 0.0
    budget_usd: float | None = None
    """The most USD that all turns of the step may use."""
    budget_used_usd: float = 0.0
    """The USD of it that they used."""
    refused_by: str = ""
    """The limit that refused the last call: `turn.tokens`, `step.usd`, `run.tokens`, `day.usd`; `prices`."""
    run_budget_tokens: int | None = None
    """The most tokens that all steps of the run may use."""
    run_budget_usd: float | None = None


class ModelLimited(EventKind, frozen=True):
    """A provider's limit ends an attempt: it lasts longer than the proxy waits."""

    step: str
    attempt: int
    message: str
    until: float | None = None
    """The time when the limit passes, in seconds since the epoch, if the provider says it."""


class AgentChanged(EventKind, frozen=True):
    """The next agent of a step takes over, in the same workspace, with the rest of the step's time and budget."""

    step: str
    attempt: int
    """The number of the next attempt."""
    agent: str
    """Its name under `agents:`."""
    after: str
    """The name of the agent before."""
    message: str


class StepWaiting(EventKind, frozen=True):
    """No agent of a step can use its model now: the run waits until then, without a process."""

    step: str
    message: str
    due: float
    """Seconds since the epoch."""


class Stalled(EventKind, frozen=True):
    """A command does nothing: no open call of its model, no output, no CPU time."""

    step: str
    attempt: int
    seconds: float
    """The time since its last sign of work."""
    message: str = ""
    """What could not be looked at, in a sentence."""


class Activity(EventKind, frozen=True):
    """An action of a step's agent, as its program reports it, masked; delivered live, not journaled."""

    step: str
    kind: ActionKind
    text: str = ""
    """The message, the command, the file or the error; its beginning."""
    id: str = ""
    """The program's id of a command: its end has the same one."""
    exit_code: int | None = None
    failed: bool = False
    seconds: float | None = None
    """The duration of a command that ended."""
    added: int | None = None
    """Lines that an edit added, if the program says so; `removed` likewise."""
    removed: int | None = None
