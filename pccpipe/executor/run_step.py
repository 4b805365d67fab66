"""A run step at its place in the walk, and what its attempts ask of it."""

from __future__ import annotations

from msgspec import Struct

from pccpipe.cancel import Halt
from pccpipe.errors import Unavailable
from pccpipe.executor.attestation import is_unattested, unattested_reads
from pccpipe.executor.context import Position, RunContext
from pccpipe.executor.exposure import Level, is_agent, level_of
from pccpipe.executor.places import first_way, following_way
from pccpipe.executor.replay import Turn
from pccpipe.executor.secrets import TokenBudget
from pccpipe.outcome import IsolationMode, Place, Reason
from pccpipe.record.events import TargetUnavailable
from pccpipe.spec.model import Host, ResultSpec, Run, Step
from pccpipe.target import ContainerSettings

ACCEPT = (
    "pccpipe doctor, then pccpipe resume {run}; or let it fall back all the same: "
    "pccpipe resume {run} --accept-fallback {step}"
)


class RunStep(Struct):
    """One turn of a step with `run:`.

    Attributes:
        spec: the step as the pipeline has it.
        is_replay: whether its attempts still come from the record.
        attempts: the number of attempts made so far, at all places.
        budget: of the turn; made for its first attempt.
    """

    context: RunContext
    position: Position
    spec: Step
    body: Run
    turn: Turn
    is_replay: bool
    attempts: int = 0
    budget: TokenBudget | None = None

    @property
    def path(self) -> str:
        return self.position.path_of(self.spec.id)

    @property
    def halt(self) -> Halt:
        """When its attempts are to end: at the run's cancel, or at its deadline."""
        return Halt(self.context.cancel, self.position.deadline)

    @property
    def first(self) -> tuple[Place, Host]:
        """Where it runs: at the place that it asks for, or where the project leads that."""
        return first_way(self.context.project.isolation_mode, self.body)

    def fallback_from(self, place: Place) -> tuple[Place, Host] | None:
        """Where the step may go when `place` is unavailable."""
        allowed = self.context.fallback_allowed
        return following_way(self.context.project.isolation_mode, self.body, place, allowed=allowed)

    @property
    def is_consented(self) -> bool:
        """Say whether a person let it fall back, whatever ran before."""
        return self.spec.id.partition("[")[0] in self.context.accepted_fallbacks

    @property
    def is_agent(self) -> bool:
        return is_agent(self.context.pipeline, self.body)

    @property
    def forged_reads(self) -> tuple[str, ...]:
        """Name the steps whose results it reads, and that could be forged."""
        return unattested_reads(self.position.scope, self.context.pipeline, self.spec, self.body)

    def is_unattested(self, place: Place) -> bool:
        """Say whether its result could be forged: at its place, or by what it was made from."""
        return is_unattested(self.context, self.body, place) or bool(self.forged_reads)

    def refuse_fallback(self, place: Place) -> Unavailable | None:
        """Say why the step may no longer fall back to `place`; None: it may."""
        if self.is_consented:
            return None
        level = level_of(place, agent=self.is_agent)
        hint = ACCEPT.format(run=self.context.run_id, step=self.spec.id.partition("[")[0])
        if self.context.exposure.forbids(level):
            words = f"an agent's code may have run already, so the step does not fall back to {place}"
            return Unavailable(Reason.AFTER_UNTRUSTED_CODE, words, hint)
        leaves_vm = self.context.project.isolation_mode is IsolationMode.VM and level < Level.VM
        if leaves_vm and (earlier := self.context.targets.vm_history):
            return Unavailable(Reason.VM_NOT_TRUSTED, f"{earlier}, so the step does not fall back to {place}", hint)
        return None

    def record_unavailable(
        self, number: int, place: Place, error: Unavailable, settings: ContainerSettings | None = None
    ) -> None:
        """Record that an attempt's place was unavailable."""
        event = TargetUnavailable(self.path, number, place, error.reason, error.words, error.hint, settings)
        self.context.journal.append(event)
        self.context.exposure.apply(event)

    def result_path(self, spec: ResultSpec, place: Place) -> str:
        """Give where its result is kept in the run's folder."""
        return spec.path.render(self.position.scope.on(place).names)
