"""One attempt of a run step: its command is begun, or found, or attached to; then followed and judged."""

from __future__ import annotations

import time
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from pccpipe import limits
from pccpipe.cancel import Halt, unless_halted
from pccpipe.errors import ActionError, Halted, Lost, PccpipeError, RecordFull, Unavailable, WorkspaceGone
from pccpipe.executor.attestation import is_unattested, runs_as_login, unattested_gates
from pccpipe.executor.command import container_settings, make_command
from pccpipe.executor.context import LeftOpen, RunContext, StepOutcome, halted
from pccpipe.executor.exposure import level_of
from pccpipe.executor.follow import follow
from pccpipe.executor.judge import judge
from pccpipe.executor.places import refusal
from pccpipe.executor.result import result_target
from pccpipe.executor.run_step import RunStep
from pccpipe.executor.secrets import StepSecrets, TokenBudget
from pccpipe.executor.shortfall import shortfalls
from pccpipe.executor.waiting import Wait, wait_for_place
from pccpipe.layout import LOGS
from pccpipe.outcome import ENGINE_AWAY, VM_AWAY, Code, Outcome, Place, Reason
from pccpipe.record.events import CommandEnded, CommandStarted, MayHaveBegun, TargetUnavailable, Warned
from pccpipe.record.logs import CommandLog
from pccpipe.spec.model import Host
from pccpipe.target import Command, ContainerSettings, Exit, Isolation, Running, Target
from pccpipe.workspace.base import Side

ATTACH_EVERY = 5.0
LAST_KNOWN = "the VM's copy of the workspace is out of reach: the step works on the copy here, as last known"
START_GRACE = {Place.VM: 0.5, Place.CONTAINER: 1.0}
"""Seconds for which a cancel waits for the word that a command has begun, which can then be ended in order."""
CHOOSE_ENGINE = "`isolation_mode: container` in the project file runs it on this machine's engine, `vm` on the VM's"


class _Abandoned(PccpipeError):
    """The run was cancelled while a machine that may have the command did not answer."""


class Attempt(Struct):
    """One attempt of a step: its number, its place, its secrets.

    Attributes:
        in_doubt: whether it may have begun its command in an earlier process that could not note it.
        may_have_begun: whether the record says so of this attempt already.
    """

    step: RunStep
    number: int
    place: Place
    where: Host
    serial: int
    secrets: StepSecrets
    budget: TokenBudget
    in_doubt: bool
    may_have_begun: bool

    @property
    def context(self) -> RunContext:
        return self.step.context

    @property
    def path(self) -> str:
        return self.step.path

    def run(self, started: CommandStarted | None) -> StepOutcome:
        """Begin the command, or attach to the one that an earlier process has `started`; then see to its end."""
        settings = None
        began = time.monotonic()
        try:
            settings = container_settings(self.where, self.place, self.step.position)
            begun = self._attached(started) if started else self._begun_or_waited()
        except Halted:
            return halted(self.step.halt)
        except Unavailable as no:
            return self._unavailable(no, settings)
        except Lost as lost:
            self._leave_open(Outcome.LOST)
            return self._lost(lost.words)
        except _Abandoned as left:
            words = f"cancelled; {left}: it may go on there until its time limit"
            self.context.journal.append(CommandEnded(self.path, self.number, Outcome.CANCELLED, message=words))
            return StepOutcome(Outcome.CANCELLED, message=words)
        except PccpipeError as error:
            self.context.room.leave_if_full(error)
            return StepOutcome(Outcome.FAILED, message=str(error))
        if begun is None:
            return StepOutcome(Outcome.CANCELLED, message="cancelled")
        running, log = begun
        ended, exit_ = self._to_its_end(running, log)
        ended = self._explained(ended, log)
        event = CommandEnded(
            step=self.path,
            attempt=self.number,
            outcome=ended.outcome,
            exit_code=exit_.code if exit_ else None,
            signal=exit_.signal if exit_ else None,
            out_of_memory=bool(exit_ and exit_.out_of_memory),
            seconds=time.monotonic() - began,
            message=ended.message,
            code=ended.code,
            reason=ended.reason,
            log_dropped=log.dropped,
        )
        # Discarded only then: until the outcome is on disk, the target's copy of the output is the one that counts.
        # One that was left as its machine is away is for the run's end to end.
        is_left = ended.outcome is Outcome.CANCELLED and exit_ is None
        self.context.journal.append(event, when_synced=None if is_left else running.discard)
        return ended

    def _unavailable(self, no: Unavailable, settings: ContainerSettings | None) -> StepOutcome:
        self.context.room.leave_if_full(no)
        self._leave_open(Outcome.UNAVAILABLE, no.reason)
        if self._stays_in_doubt(no.reason):
            return self._lost(f"it may have begun before the run was resumed: {no.words}")
        self.step.unavailable(
            TargetUnavailable(self.path, self.number, self.place, no.reason, no.words, no.hint, settings)
        )
        if self.context.cancel.requested:
            return StepOutcome(Outcome.CANCELLED, message=f"cancelled; {no.words}")
        return StepOutcome(Outcome.UNAVAILABLE, reason=no.reason, message=no.words)

    def _to_its_end(self, running: Running, log: CommandLog) -> tuple[StepOutcome, Exit | None]:
        """Follow the command, and judge it."""
        try:
            sign = None if self.place is Place.LOCAL else lambda: self.context.targets.gives_sign(self.place)
            followed = follow(self.context, self.path, running, log, self.step.position.deadline, sign)
            ended = judge(self.step, running, followed, self.place, log)
            self._leave_open(ended.outcome, ended.reason)
        except Unavailable as no:
            self._leave_open(Outcome.UNAVAILABLE, no.reason)
            # What it left there goes on, and may touch all that comes after it.
            return StepOutcome(Outcome.UNAVAILABLE, reason=no.reason, message=no.words), None
        except RecordFull:
            if self.context.cancel.requested:
                running.stop(self.context.cancel.grace)
            running.let_go()
            raise
        finally:
            log.close()
            self.context.logs.settle(log)
            self.secrets.close()
        return ended, followed.exit

    def _explained(self, ended: StepOutcome, log: CommandLog) -> StepOutcome:
        """The end, with its cause in words where that is not the command's own doing."""
        if log.failure and ended.outcome in {Outcome.SUCCEEDED, Outcome.FAILED}:
            words = f"{log.stdout_path.parent}: its log cannot be written: {log.failure}"
            ended = replace(ended, outcome=Outcome.FAILED, message=words)
        how = f" ({ended.message})" if ended.message else ""
        if self.budget.exceeded and ended.outcome is not Outcome.SUCCEEDED:
            key = f"raise `{self.budget.key}` of {self.step.spec.id}"
            code = ended.code or (Code.BUDGET_EXCEEDED if ended.outcome is Outcome.FAILED else None)
            return replace(ended, message=f"stopped by its budget: {self.budget.exceeded}; {key}{how}", code=code)
        if self.secrets.trouble and ended.outcome is Outcome.FAILED:
            return replace(ended, message=f"{self.secrets.trouble} ({ended.message})")
        if over := self.budget.overdrawn:
            self.context.journal.append(Warned(over, self.path))
        return ended

    def _stays_in_doubt(self, reason: Reason) -> bool:
        """Say whether a place that can't be used now, and may have the command already, keeps it from any other.

        A run that is exposed stops then, and asks again when it is resumed; unless it was an agent that may have begun.
        """
        if not self.in_doubt or reason in VM_AWAY | ENGINE_AWAY or self.may_have_begun:
            return self.in_doubt
        return self.place in self.context.used and not self.context.exposure.is_exposed

    def _leave_open(self, outcome: Outcome, reason: Reason | None = None) -> None:
        """Raise `LeftOpen` for an attempt that ends so only because the VM was taken over from the run."""
        fenced = self.context.targets.fenced
        if fenced and (reason is Reason.FENCED or outcome in {Outcome.LOST, Outcome.UNAVAILABLE}):
            raise LeftOpen(fenced)

    def _lost(self, words: str) -> StepOutcome:
        self.context.journal.append(CommandEnded(self.path, self.number, Outcome.LOST, message=words))
        return StepOutcome(Outcome.LOST, message=words)

    def _begun_or_waited(self) -> tuple[Running, CommandLog] | None:
        self.secrets.issue(self.path, self.number)
        step = self.step
        wait = Wait(self.place, self.path, step.position.deadline, self._stays_in_doubt, step.is_consented)
        return wait_for_place(self.context, wait, self._begun)

    def _begun(self) -> tuple[Running, CommandLog] | None:
        """The command, begun; or found, if a process that was killed right then began it. None: cancelled before."""
        started = self._start()
        if started is None:
            return None
        running, command = started
        log = self._open_log(command)
        try:
            self._record_start(command, running, log)
        except BaseException:
            running.let_go()
            log.close()
            self.context.logs.settle(log)
            raise
        return running, log

    def _attached(self, started: CommandStarted) -> tuple[Running, CommandLog]:
        """A command that an earlier process began. Raises `Lost` when its place stays away; `_LeftAlone`."""
        limit = self.context.project.lost_after
        deadline = time.monotonic() + limit
        while True:
            if self.context.cancel.requested and self.context.absence.is_known:
                raise _Abandoned("its machine is away")
            try:
                running = unless_halted(Halt(self.context.cancel), lambda: self._opened().attach(started.token))
                break
            except Halted as halted:
                raise _Abandoned("its machine did not answer") from halted
            except Unavailable as no:
                if time.monotonic() + ATTACH_EVERY > deadline:
                    raise Lost(f"{no.words} (since the run was resumed, {limit:g} s ago)") from no
                if self.context.cancel.wait(ATTACH_EVERY):
                    raise _Abandoned(no.words) from no
        if not started.had.read_only_workspace:
            self.context.workspace.mark_changed(self.context.side_of(self.place))
        return running, CommandLog(
            self.context.run_dir,
            started.stdout,
            started.stderr,
            from_start=True,
            limit=self._log_limit(),
            room=self.context.room,
        )

    def _start(self) -> tuple[Running, Command] | None:
        context, step = self.context, self.step
        if step.body.result:
            # Wrong, it would be found when the agent's hour is over.
            result_target(step.result_path(step.body.result, self.place), context.run_dir)
        if not self.in_doubt:
            self._check_place()
        side = context.side_of(self.place)
        # This machine answers at once; a thread and a timer would cost a third of a step.
        target = self._opened() if self.place is Place.LOCAL else unless_halted(step.halt, self._opened)
        command = make_command(
            context, step.position, step.spec, step.body, self.where, self.place, self.serial, self.secrets
        )
        running = None if context.replay.is_empty else unless_halted(step.halt, lambda: target.find(command))
        if running is None:
            if self.in_doubt:
                self.in_doubt = False
                self._check_place()
            self._prepare(side)
            if context.cancel.requested:
                return None
            self._record_may_begin()
            running = self._begin(target, command)
        # The run's copy stays the VM's, for who goes on with the run.
        if not context.targets.fenced and not (command.container and command.container.read_only_workspace):
            context.workspace.mark_changed(side)
        return running, command

    def _begin(self, target: Target, command: Command) -> Running:
        """Begin the command. Raises `_LeftAlone` if the run is cancelled while nobody says whether it began."""
        if self.place is Place.LOCAL:
            return target.start(command)
        try:
            return unless_halted(
                Halt(self.context.cancel),
                lambda: target.start(command),
                grace=START_GRACE[self.place],
                undo=lambda running: running.stop(0),
            )
        except Halted as halted:
            whose = "the VM" if self.place is Place.VM else "the engine"
            raise _Abandoned(f"{whose} did not say whether it began") from halted

    def _opened(self) -> Target:
        target = self.context.targets[self.place]
        target.open()
        return target

    def _check_place(self) -> None:
        """Raise `Unavailable` if the step may not begin there, whatever the place's state."""
        context = self.context
        if refused := refusal(context.project.isolation_mode, self.step.body):
            raise Unavailable(Reason.ENGINE_MISSING, refused, CHOOSE_ENGINE)
        if self.place is not self.step.first[0] and (no := self.step.refuse_fallback(self.place)):
            raise no
        if self.step.body.isolation_required:
            forged = list(dict.fromkeys((*unattested_gates(self.step.position), *self.step.forged_reads)))
            if self.step.body.result and is_unattested(context, self.step.body, self.place):
                forged.append(self.step.spec.id)
            if forged:
                words = f"`isolation: required`, and a command on the VM could forge the result of {', '.join(forged)}"
                raise Unavailable(
                    Reason.UNATTESTED, words, "give the VM's workspace code an account: `vm: {run_as: ...}`"
                )

    def _prepare(self, side: Side) -> None:
        context = self.context
        if context.targets.fenced:
            if context.workspace.ensure_local(self.step.halt):
                context.journal.append(Warned(LAST_KNOWN, self.path))
            return
        last_known = self.step.is_consented and self.place is not self.step.first[0]
        try:
            sent = context.workspace.prepare(side, self.step.halt, or_last_known=last_known)
        except WorkspaceGone:
            raise  # an earlier step's doing, and not the place's state
        except ActionError as error:
            raise Unavailable(Reason.WORKSPACE_REFUSED, error.message, error.hint) from error
        if sent is not None and sent.stale:
            context.journal.append(Warned(LAST_KNOWN, self.path))
        if sent is not None and sent.refused:
            text = f"not everything of the VM's copy of the workspace came home: {'; '.join(sent.refused)}"
            context.journal.append(Warned(text, self.path))

    def _record_may_begin(self) -> None:
        """Put on disk, before it begins, that code of an agent may run at its place."""
        context = self.context
        if (self.place is Place.CONTAINER or self.step.is_agent) and not self.may_have_begun:
            level = level_of(self.place, agent=self.step.is_agent)
            consented = self.place is not self.step.first[0] and context.exposure.forbids(level)
            event = MayHaveBegun(self.path, self.number, self.place, consented)
            context.exposure.apply(event)
            context.journal.append(event)
            self.may_have_begun = True
        if context.exposure.least is not None and runs_as_login(context, self.step.body, self.place):
            context.targets.remember_vm()

    def _open_log(self, command: Command) -> CommandLog:
        folder = Path(LOGS)
        if self.step.body.result:
            folder = Path(self.step.result_path(self.step.body.result, self.place)).parent
        return CommandLog.create(
            self.context.run_dir,
            folder,
            command.id,
            short=bool(self.step.body.result),
            limit=self._log_limit(),
            room=self.context.room,
        )

    def _log_limit(self) -> int:
        limit = self.context.logs.take(self.context.run_dir, self.step.body.log_limit)
        if limit < self.step.body.log_limit:
            quota = replace(limits.RUN_LOGS, most=self.context.logs.most)
            words = f"{quota.exceeded('what the logs of the run take')}; the step's log has at most {limit:,} bytes"
            self.context.journal.append(Warned(words, self.path))
        return limit

    def _record_start(self, command: Command, running: Running, log: CommandLog) -> None:
        as_login = runs_as_login(self.context, self.step.body, running.isolation.place)
        event = CommandStarted(
            self.path,
            self.number,
            command.id,
            running.isolation,
            log.stdout_name,
            log.stderr_name,
            running.token,
            command.container,
            as_login,
        )
        self.context.journal.append(event)
        self.context.exposure.apply(event)
        if as_login:
            self.context.replay.login_began = True
        self.context.used.add(running.isolation.place)
        if command.container and running.isolation.image:
            self._warn_shortfalls(command.container, running.isolation)
            self._warn_changed_image(running.isolation)

    def _warn_changed_image(self, had: Isolation) -> None:
        """Warn, once a run, of an image behind whose name there is another one than when the VM was provisioned."""
        told = self.context.replay.changed_images
        if had.image and had.image_digest and had.image_provisioned and had.image not in told:
            told.add(had.image)
            before, now = (digest.removeprefix("sha256:")[:12] for digest in (had.image_provisioned, had.image_digest))
            words = f"the image {had.image} changed since the VM was provisioned: it was {before} and is {now}"
            self.context.journal.append(Warned(f"{words}; fix: pccpipe provision", self.path))

    def _warn_shortfalls(self, asked: ContainerSettings, had: Isolation) -> None:
        lacking = "; ".join(shortfalls(asked, had))
        if lacking:
            self.context.journal.append(Warned(f"its container has not all that was asked: {lacking}", self.path))
