"""A step as the fold of a run's events knows it: its attempts, its end, its questions."""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec import Struct, field

from pccpipe.outcome import Code, Outcome, Place, Reason
from pccpipe.record.codec import to_json
from pccpipe.record.step_path import label
from pccpipe.target import ContainerSettings, Isolation
from pccpipe.values import Json


class Attempt(Struct):
    """One attempt at a step's command: it began (`had`), or its place was unavailable (`reason`)."""

    number: int
    outcome: Outcome | None = None
    command: str | None = None
    settings: ContainerSettings | None = None
    """What was asked of its container."""
    had: Isolation | None = None
    reason: Reason | None = None
    words: str = ""
    hint: str = ""
    exit_code: int | None = None
    signal: str | None = None
    out_of_memory: bool = False
    seconds: float | None = None
    stdout: str | None = None
    stderr: str | None = None
    message: str = ""
    log_dropped: int = 0
    """Bytes of its output that its logs leave out."""
    secrets: dict[str, Json] = field(default_factory=dict)
    """`direct` or `proxy`, by name."""
    code: Code | None = None


class StepState(Struct):
    path: str
    kind: str | None = None
    """None for a step that was skipped: it never said what it is."""
    name: str = ""
    always: bool = False
    asked: Place | None = None
    outcome: Outcome | None = None
    """None while it runs."""
    ignored: bool = False
    started_at: float | None = None
    seconds: float | None = None
    round: int | None = None
    rounds: int | None = None
    attempts: list[Attempt] = field(default_factory=list)
    exit_code: int | None = None
    reason: Reason | None = None
    code: Code | None = None
    message: str = ""
    result: Json = None
    result_path: str | None = None
    unattested: bool = False
    """Its result could have been forged by a command on the VM."""
    facts: dict[str, Json] = field(default_factory=dict)
    """What a built-in action did."""
    warning: str = ""
    """The latest, for a view of what goes on: such as for what it waits."""
    model: dict[str, Json] | None = None
    """What it used of a model, by the proxy's account."""

    def attempt(self, number: int) -> Attempt:
        """The attempt of that number, made if need be."""
        for attempt in self.attempts:
            if attempt.number == number:
                return attempt
        self.attempts.append(Attempt(number))
        return self.attempts[-1]

    @property
    def had(self) -> Isolation | None:
        """What the last command that began really had."""
        return next((attempt.had for attempt in reversed(self.attempts) if attempt.had), None)

    @property
    def refusal(self) -> Attempt | None:
        """The last attempt whose place was not to be had, if the step ended so."""
        if self.outcome is not Outcome.UNAVAILABLE:
            return None
        return next((attempt for attempt in reversed(self.attempts) if attempt.reason), None)

    def to_json(self) -> dict[str, Json]:
        """The step as run.json has it."""
        refusal = self.refusal
        return {
            "path": self.path,
            "id": label(self.path),
            "kind": self.kind,
            "name": self.name,
            "always": self.always,
            "asked": to_json(self.asked),
            "had": to_json(self.had),
            "outcome": to_json(self.outcome),
            "ignored": self.ignored,
            "started_at": iso(self.started_at),
            "seconds": self.seconds,
            "round": self.round,
            "rounds": self.rounds,
            "attempts": to_json(self.attempts),
            "exit_code": self.exit_code,
            "reason": to_json(self.reason),
            "words": refusal.words if refusal else "",
            "hint": refusal.hint if refusal else "",
            "code": to_json(self.code),
            "message": self.message,
            "result": self.result,
            "result_path": self.result_path,
            "unattested": self.unattested,
            "facts": self.facts,
            "model": self.model,
        }


class Downgrade(Struct, frozen=True):
    step: str
    asked: Place
    had: Place
    reason: Reason
    words: str


class Question(Struct):
    """What the agent of a step needs of a person."""

    step: str
    tried: str
    needed: str
    inputs: dict[str, Json]
    given: dict[str, Json] = field(default_factory=dict)

    @property
    def missing(self) -> list[str]:
        """The keys that nobody has given yet."""
        return [key for key in self.inputs if key not in self.given]


def iso(moment: float | None) -> str | None:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds") if moment is not None else None
