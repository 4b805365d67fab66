"""Describe one turn of a run step: its places, whether it may fall back, its result."""

from __future__ import annotations

from msgspec import Struct

from pccpipe.cancel import Halt
from pccpipe.errors import Unavailable
from pccpipe.executor.attestation import is_unattested, receiver_of, unattested_reads
from pccpipe.executor.budget import StepBudget
from pccpipe.executor.context import RunContext, WalkPosition
from pccpipe.executor.exposure import Level, is_agent, level_of
from pccpipe.executor.places import first_way, following_way
from pccpipe.executor.replay import Turn
from pccpipe.outcome import IsolationMode, Place, Reason
from pccpipe.record.events import TargetUnavailable
from pccpipe.spec.model import Host, ResultSpec, Run, Step
from pccpipe.target import ContainerSettings

ACCEPT = (
    "pccpipe doctor, then pccpipe resume {run}; or allow the fallback: pccpipe resume {run} --accept-fallback {step}"
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
    position: WalkPosition
    spec: Step
    body: Run
    turn: Turn
    is_replay: bool
    attempts: int = 0
    budget: StepBudget | None = None

    @property
    def path(self) -> str:
        return self.position.path_of(self.spec.id)

    @property
    def halt(self) -> Halt:
        """Return what ends its attempts: the run's cancel, or the step's deadline."""
        return Halt(self.context.cancel, self.position.deadline)

    @property
    def first(self) -> tuple[Place, Host]:
        """Return the place where it runs first: the one that it asks for, or the one that the project leads that to."""
        return first_way(self.context.project.isolation_mode, self.body)

    def fallback_from(self, place: Place) -> tuple[Place, Host] | None:
        """Return the place that the step may fall back to when `place` is unavailable."""
        allowed = self.context.fallback_allowed
        return following_way(self.context.project.isolation_mode, self.body, place, allowed=allowed)

    @property
    def is_consented(self) -> bool:
        """Say whether a person allowed it to fall back also after an agent's code."""
        return self.spec.id.partition("[")[0] in self.context.accepted_fallbacks

    @property
    def is_agent(self) -> bool:
        return is_agent(self.context.pipeline, self.body)

    @property
    def has_account(self) -> bool:
        """Say whether the VM has an account of its own for the code of steps."""
        project = self.context.project
        return project.isolation_mode is IsolationMode.VM and project.vm is not None and bool(project.vm.run_as)

    @property
    def forged_reads(self) -> tuple[str, ...]:
        """Return the ids of the steps whose results it reads and a command on the VM could have forged."""
        return unattested_reads(self.position.scope, self.context.pipeline, self.spec, self.body)

    def is_unattested(self, place: Place) -> bool:
        """Say whether a command on the VM could forge its result, at its place or in a result that it reads."""
        return is_unattested(self.context, self.body, place) or bool(self.forged_reads or self.forged_exports(place))

    def forged_exports(self, place: Place) -> tuple[str, ...]:
        """Return the ids of the steps whose variables it gets and a command on the VM could have forged."""
        return self.position.exports.unattested(receiver_of(self.context, self.body, place))

    def refuse_fallback(self, place: Place) -> Unavailable | None:
        """Return why the step may not fall back to `place`; None: it may."""
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
        """Return the path of its result in the run's folder."""
        return spec.path.render(self.position.scope.on(place).names)
