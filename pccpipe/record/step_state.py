"""A step as the fold of a run's events knows it: its attempts and its end."""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec import Struct, field
from msgspec.structs import asdict

from pccpipe.outcome import Code, Outcome, Place, Reason
from pccpipe.record.agent_events import ModelUsed, Stalled
from pccpipe.record.agent_report import AgentReport, sum_of
from pccpipe.record.events import (
    CommandEnded,
    CommandStarted,
    ServiceEnded,
    ServiceReady,
    ServiceStarted,
    StepEnded,
    TargetUnavailable,
)
from pccpipe.record.run_file import AttemptEntry, ServiceEntry, StepEntry
from pccpipe.record.step_path import label
from pccpipe.target import ContainerSettings, Isolation
from pccpipe.values import Json
from pccpipe.words import duration


class AttemptState(Struct):
    """One attempt at a step's command, as its events say: it started and ended, or its place was unavailable."""

    number: int
    started: CommandStarted | None = None
    ended: CommandEnded | None = None
    unavailable: TargetUnavailable | None = None
    secrets: dict[str, Json] = field(default_factory=dict)
    """`direct` or `proxy`, by name."""
    repairs: list[str] = field(default_factory=list)
    """The errors of each result that its agent was asked to repair."""
    commands: list[CommandStarted] = field(default_factory=list)
    """All its commands, in order: a repair is a further one."""
    reports: list[AgentReport] = field(default_factory=list)
    """The work of its agent in each command that ended."""

    @property
    def outcome(self) -> Outcome | None:
        """None while it runs."""
        if self.ended:
            return self.ended.outcome
        return Outcome.UNAVAILABLE if self.unavailable else None

    @property
    def had(self) -> Isolation | None:
        """The isolation that its command really had; None if it did not start."""
        return self.started.had if self.started else None

    @property
    def logs(self) -> tuple[str, ...]:
        """The paths of its commands' logs in the record, stdout before stderr; none if it did not start."""
        return tuple(name for command in self.commands for name in (command.stdout, command.stderr))

    @property
    def work(self) -> AgentReport | None:
        """The work of its agent in all its commands, by its program's account."""
        return sum_of(self.reports)

    def begin(self, what: CommandStarted) -> None:
        """Note that a command of it began."""
        self.started, self.ended = what, None
        self.commands.append(what)

    def end(self, what: CommandEnded) -> None:
        """Note that its command ended."""
        self.ended = what
        if what.agent:
            self.reports.append(what.agent)

    @property
    def settings(self) -> ContainerSettings | None:
        """The settings that its container was asked for."""
        source = self.started or self.unavailable
        return source.settings if source else None

    def entry(self) -> AttemptEntry:
        """Return the attempt as run.json has it."""
        started, ended, unavailable = self.started, self.ended, self.unavailable
        return AttemptEntry(
            number=self.number,
            outcome=self.outcome,
            command=started.command if started else None,
            settings=self.settings,
            had=self.had,
            reason=unavailable.reason if unavailable else None,
            words=unavailable.words if unavailable else "",
            hint=unavailable.hint if unavailable else "",
            exit_code=ended.exit_code if ended else None,
            signal=ended.signal if ended else None,
            out_of_memory=bool(ended and ended.out_of_memory),
            seconds=ended.seconds if ended else None,
            stdout=started.stdout if started else None,
            stderr=started.stderr if started else None,
            message=ended.message if ended else "",
            log_dropped=ended.log_dropped if ended else 0,
            secrets=self.secrets,
            code=ended.code if ended else None,
            exports=tuple(ended.exports.variables) if ended and ended.exports else (),
        )


class ServiceState(Struct):
    """A service of a step or group, as its events say."""

    started: ServiceStarted
    ready: ServiceReady | None = None
    ended: ServiceEnded | None = None
    """None while it runs."""

    def entry(self) -> ServiceEntry:
        """Return the service as run.json has it."""
        ended = self.ended
        return ServiceEntry(
            name=self.started.service,
            had=self.started.had,
            ready=self.ready is not None,
            running=ended is None,
            ports=dict(self.ready.ports) if self.ready else {},
            secrets=list(self.started.secrets),
            loosened=list(self.started.loosened),
            exit_code=ended.exit_code if ended else None,
            out_of_memory=bool(ended and ended.out_of_memory),
            seconds=ended.seconds if ended else None,
            with_owner=bool(ended and ended.with_owner),
            message=ended.message if ended else "",
            stdout=self.started.stdout,
            stderr=self.started.stderr,
            log_dropped=ended.log_dropped if ended else 0,
        )


class StepState(Struct):
    path: str
    kind: str | None = None
    """None for a step that was skipped: its record does not say."""
    name: str = ""
    always: bool = False
    asked: Place | None = None
    started_at: float | None = None
    timeout: float | None = None
    """Its time limit in seconds, of a step with `agent:`."""
    background: bool = False
    """True if its command runs beside the next steps."""
    ready: bool = False
    """True once a background command is ready."""
    services: dict[str, ServiceState] = field(default_factory=dict)
    """The services beside it, by name."""
    ended: StepEnded | None = None
    """None while it runs."""
    round: int | None = None
    rounds: int | None = None
    attempts: list[AttemptState] = field(default_factory=list)
    facts: dict[str, Json] = field(default_factory=dict)
    """Counts and names of what a built-in action did."""
    warning: str = ""
    """The latest, for a view: for example the thing that the step waits for."""
    still_since: float | None = None
    """Set while its command is stalled: the time of its last sign of work, in seconds since the epoch."""
    model: ModelUsed | None = None
    """The step's use of a model, by the proxy's account."""

    def apply_service(self, what: ServiceStarted | ServiceReady | ServiceEnded) -> None:
        """Note what a service of the step did."""
        match what:
            case ServiceStarted():
                self.services[what.service] = ServiceState(what)
            case ServiceReady():
                self.services[what.service].ready = what
            case ServiceEnded():
                self.services[what.service].ended = what

    def attempt(self, number: int) -> AttemptState:
        """Return the attempt of that number, made if need be."""
        for attempt in self.attempts:
            if attempt.number == number:
                return attempt
        self.attempts.append(AttemptState(number))
        return self.attempts[-1]

    @property
    def outcome(self) -> Outcome | None:
        """None while it runs."""
        return self.ended.outcome if self.ended else None

    @property
    def ignored(self) -> bool:
        """True if it did not succeed, and `continue_on_error` says to go on."""
        return bool(self.ended and self.ended.ignored)

    @property
    def reason(self) -> Reason | None:
        """Set if its outcome is `unavailable`."""
        return self.ended.reason if self.ended else None

    @property
    def code(self) -> Code | None:
        """The cause of its failure, where programs must know it; or `output_lost`."""
        return self.ended.code if self.ended else None

    @property
    def message(self) -> str:
        """Why it did not succeed, in a sentence."""
        return self.ended.message if self.ended else ""

    @property
    def seconds(self) -> float | None:
        """Its duration; None while it runs."""
        return self.ended.seconds if self.ended else None

    @property
    def had(self) -> Isolation | None:
        """The isolation of the last command that started."""
        return next((attempt.had for attempt in reversed(self.attempts) if attempt.had), None)

    @property
    def agent(self) -> str:
        """The name of the agent of the last command that started; empty without `agent:`."""
        return next((attempt.started.agent for attempt in reversed(self.attempts) if attempt.started), "")

    @property
    def refusal(self) -> TargetUnavailable | None:
        """The last refusal of a place, if the step ended so."""
        if self.outcome is not Outcome.UNAVAILABLE:
            return None
        return next((attempt.unavailable for attempt in reversed(self.attempts) if attempt.unavailable), None)

    def entry(self) -> StepEntry:
        """Return the step as run.json has it."""
        refusal, ended = self.refusal, self.ended
        return StepEntry(
            path=self.path,
            id=label(self.path),
            kind=self.kind,
            name=self.name,
            always=self.always,
            background=self.background,
            ready=self.ready,
            services=[service.entry() for service in self.services.values()],
            asked=self.asked,
            had=self.had,
            outcome=self.outcome,
            ignored=self.ignored,
            started_at=iso(self.started_at),
            seconds=self.seconds,
            round=self.round,
            rounds=self.rounds,
            attempts=[attempt.entry() for attempt in self.attempts],
            exit_code=ended.exit_code if ended else None,
            reason=self.reason,
            words=refusal.words if refusal else "",
            hint=refusal.hint if refusal else "",
            code=self.code,
            message=self.message,
            result=ended.result if ended else None,
            result_path=ended.result_path if ended else None,
            unattested=bool(ended and ended.unattested),
            facts=self.facts,
            model={name: count for name, count in asdict(self.model).items() if name != "step"} if self.model else None,
        )


def stalled_text(what: Stalled) -> str:
    """Say since when a command does nothing."""
    unseen = f" ({what.message})" if what.message else ""
    return f"stalled: no output, no call of a model and no CPU time for {duration(what.seconds)}{unseen}"


def iso(moment: float | None) -> str | None:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds") if moment is not None else None
