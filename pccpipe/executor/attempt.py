"""Make one attempt of a run step: begin, find or attach to its command, then follow and judge it."""

from __future__ import annotations

import time
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from pccpipe import limits
from pccpipe.cancel import Halt, unless_halted
from pccpipe.errors import ActionError, Halted, Lost, PccpipeError, RecordFull, Unavailable
from pccpipe.executor.agent_output import AgentOutput, agent_output
from pccpipe.executor.command import container_settings, make_command
from pccpipe.executor.command_watch import CommandWatch
from pccpipe.executor.context import LeftOpen, RunContext, StepOutcome, halted
from pccpipe.executor.conversation import Conversation, conversation_of
from pccpipe.executor.follow import follow
from pccpipe.executor.judge import explain_interpreter, judge
from pccpipe.executor.ready_check import until_ready
from pccpipe.executor.repair import Repair, with_repair
from pccpipe.executor.result import result_target
from pccpipe.executor.run_step import RunStep
from pccpipe.executor.secrets import StepSecrets
from pccpipe.executor.start import check_place, prepare_workspace, record_may_begin, record_start, remember_vm
from pccpipe.executor.take_exports import take_exports, warn_of_withheld
from pccpipe.executor.waiting import Wait, wait_for_place
from pccpipe.layout import LOGS
from pccpipe.outcome import ENGINE_AWAY, VM_AWAY, Outcome, Place, Reason
from pccpipe.record.agent_events import SessionKept
from pccpipe.record.events import CommandEnded, CommandStarted, Warned
from pccpipe.record.logs import CommandLog
from pccpipe.spec.model import Host
from pccpipe.target import Command, ContainerSettings, Exit, Running, Target

ATTACH_EVERY = 5.0
START_GRACE = {Place.VM: 0.5, Place.CONTAINER: 1.0}
"""Seconds that a cancel waits until the place says that a command has begun: then it can be stopped in order."""


class _Abandoned(PccpipeError):
    """The run was cancelled while the machine that may have the command did not answer."""


class Attempt(Struct):
    """One attempt of a step at one place.

    Attributes:
        in_doubt: whether an earlier process may have begun its command and could not record it.
        may_have_begun: whether the record already has `may_have_begun` for this attempt.
        repair: for a command that asks an agent again.
        conversation: the session of its agent.
        kept: the session that it left.
    """

    step: RunStep
    number: int
    place: Place
    where: Host
    serial: int
    secrets: StepSecrets
    in_doubt: bool
    may_have_begun: bool
    repair: Repair | None = None
    conversation: Conversation | None = None
    kept: SessionKept | None = None

    @property
    def context(self) -> RunContext:
        return self.step.context

    @property
    def path(self) -> str:
        return self.step.path

    def run(self, started: CommandStarted | None) -> StepOutcome:
        """Begin the command, or attach to the one that an earlier process `started`; follow it and record its end."""
        settings = None
        began = time.monotonic()
        self.conversation = conversation_of(self.step, self.number, self.place)
        try:
            settings = container_settings(self.where, self.place, self.step.position)
            begun = self._attached(started) if started else self._begun_after_wait()
        except Halted:
            return halted(self.step.halt)
        except Unavailable as unavailable:
            return self._unavailable(unavailable, settings)
        except Lost as lost:
            self._leave_open(Outcome.LOST)
            return self._lost(lost.words)
        except _Abandoned as abandoned:
            words = f"cancelled; {abandoned}: it may go on there until its time limit"
            self.context.journal.append(CommandEnded(self.path, self.number, Outcome.CANCELLED, message=words))
            return StepOutcome(Outcome.CANCELLED, message=words)
        except PccpipeError as error:
            self.context.room.leave_if_full(error)
            code = error.code if isinstance(error, ActionError) else None
            return StepOutcome(Outcome.FAILED, code=code, message=str(error))
        if begun is None:
            return StepOutcome(Outcome.CANCELLED, message=self.context.cancel.message)
        running, log = begun
        background = self.step.position.background
        agent = agent_output(self.step, running, log)
        ended, exit_ = self._to_its_end(running, log, agent)
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
            exports=ended.exports,
            session=self.kept,
            agent=agent.report() if agent else None,
            with_group=bool(background and background.ended_with_group),
        )
        # The target keeps its copy of the output until the outcome is on disk.
        # A command whose machine was away is stopped at the end of the run.
        is_abandoned = ended.outcome is Outcome.CANCELLED and exit_ is None
        self.context.journal.append(event, when_synced=None if is_abandoned else running.discard)
        if self.conversation and self.kept:
            self.conversation.use(self.kept)
        return ended

    def _unavailable(self, unavailable: Unavailable, settings: ContainerSettings | None) -> StepOutcome:
        self.context.room.leave_if_full(unavailable)
        self._leave_open(Outcome.UNAVAILABLE, unavailable.reason)
        if self._stays_in_doubt(unavailable.reason):
            return self._lost(f"it may have begun before the run was resumed: {unavailable.words}")
        self.step.record_unavailable(self.number, self.place, unavailable, settings)
        if self.context.cancel.requested:
            return StepOutcome(Outcome.CANCELLED, message=f"cancelled; {unavailable.words}")
        return StepOutcome(Outcome.UNAVAILABLE, reason=unavailable.reason, message=unavailable.words)

    def _to_its_end(
        self, running: Running, log: CommandLog, agent: AgentOutput | None
    ) -> tuple[StepOutcome, Exit | None]:
        """Follow the command to its end, and judge that."""
        try:
            gives_sign = None if self.place is Place.LOCAL else self._gives_sign
            watch = CommandWatch(self.step, self.number, self.secrets, running) if self.step.body.agent else None
            deadline = self.step.position.deadline
            with until_ready(self, log):
                followed = follow(self.context, self.path, running, log, deadline, gives_sign, agent, watch)
            ended = judge(self.step, running, followed, self.place, log, agent)
            ended = take_exports(self.step, running, ended, self.where, self.place)
            self._leave_open(ended.outcome, ended.reason)
            if self.conversation and agent:
                self.kept = self.conversation.keep(running, ended, agent.reader.session_id)
        except Unavailable as unavailable:
            self._leave_open(Outcome.UNAVAILABLE, unavailable.reason)
            # Processes that it left there still run, and may change anything that a later step uses.
            return StepOutcome(Outcome.UNAVAILABLE, reason=unavailable.reason, message=unavailable.words), None
        except RecordFull:
            if self.context.cancel.requested:
                running.stop(self.context.cancel.grace)
            running.let_go()
            raise
        finally:
            if agent:
                agent.close()
            log.close()
            self.context.logs.settle(log)
            self.secrets.close()
        return ended, followed.exit

    def _gives_sign(self) -> bool:
        """Say whether the command's machine answers, or is waited for because the run goes on after the command."""
        background = self.step.position.background
        return bool(background and background.is_awaited) or self.context.targets.gives_sign(self.place)

    def begun_beside(self, command: Command) -> Running:
        """Begin another command at the same place, or find it if an earlier process of the run began it."""
        target = self._opened()
        found = None if self.context.replay.is_empty else target.find(command)
        return found or target.start(command)

    def _explained(self, ended: StepOutcome, log: CommandLog) -> StepOutcome:
        """Return the outcome with its cause, where that lies outside of the command."""
        if log.failure and ended.outcome in {Outcome.SUCCEEDED, Outcome.FAILED}:
            words = f"{log.stdout_path.parent}: its log cannot be written: {log.failure}"
            ended = replace(ended, outcome=Outcome.FAILED, message=words)
        ended = explain_interpreter(ended, self.where, self.place)
        return self.secrets.explain(ended, self.step.spec.id)

    def _stays_in_doubt(self, reason: Reason) -> bool:
        """Say whether the command may still run at the unavailable place, so that the step must not go elsewhere.

        An exposed run stops in that case, and tries again when it is resumed, unless an agent may have begun.
        """
        if not self.in_doubt or reason in VM_AWAY | ENGINE_AWAY or self.may_have_begun:
            return self.in_doubt
        return self.place in self.context.used and not self.context.exposure.is_exposed

    def _leave_open(self, outcome: Outcome, reason: Reason | None = None) -> None:
        """Raise `LeftOpen` if the attempt ends only because another run or process took over the VM."""
        fenced = self.context.targets.fenced
        if fenced and (reason is Reason.FENCED or outcome in {Outcome.LOST, Outcome.UNAVAILABLE}):
            raise LeftOpen(fenced)

    def _lost(self, words: str) -> StepOutcome:
        self.context.journal.append(CommandEnded(self.path, self.number, Outcome.LOST, message=words))
        return StepOutcome(Outcome.LOST, message=words)

    def _begun_after_wait(self) -> tuple[Running, CommandLog] | None:
        self.secrets.issue(self.path, self.number)
        warn_of_withheld(self.step, self.where, self.place)
        step = self.step
        wait = Wait(self.place, self.path, step.position.deadline, self._stays_in_doubt, step.is_consented)
        return wait_for_place(self.context, wait, self._begun)

    def _begun(self) -> tuple[Running, CommandLog] | None:
        """Begin the command, or find the one that a killed process began; None if the run was cancelled before."""
        started = self._start()
        if started is None:
            return None
        running, command = started
        log = self._open_log(command)
        try:
            record_start(self.step, self.number, command, running, log)
        except BaseException:
            running.let_go()
            log.close()
            self.context.logs.settle(log)
            raise
        return running, log

    def _attached(self, started: CommandStarted) -> tuple[Running, CommandLog]:
        """Attach to the command of an earlier process. Raises `Lost` if its place stays unreachable; `_Abandoned`."""
        limit = self.context.project.lost_after
        deadline = time.monotonic() + limit
        while True:
            if self.context.cancel.requested and self.context.absence.is_known:
                raise _Abandoned("its machine is unreachable")
            try:
                running = unless_halted(Halt(self.context.cancel), lambda: self._opened().attach(started.token))
                break
            except Halted as halted:
                raise _Abandoned("its machine did not answer") from halted
            except Unavailable as unavailable:
                if time.monotonic() + ATTACH_EVERY > deadline:
                    raise Lost(f"{unavailable.words} (since the run was resumed, {limit:g} s ago)") from unavailable
                if self.context.cancel.wait(ATTACH_EVERY):
                    raise _Abandoned(unavailable.words) from unavailable
        if self.conversation:
            self.conversation.attach(started)
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
            # Checked now: an invalid path must not fail the step after an hour of the agent's work.
            result_target(step.result_path(step.body.result, self.place), context.run_dir)
        if not self.in_doubt:
            check_place(step, self.place)
        side = context.side_of(self.place)
        # This machine answers at once; a thread and a timer would take a third of a local step's time.
        target = self._opened() if self.place is Place.LOCAL else unless_halted(step.halt, self._opened)
        command = make_command(
            context, step.position, step.spec, step.body, self.where, self.place, self.serial, self.secrets
        )
        if self.conversation:
            command = self.conversation.continued_by(command, is_repair=self.repair is not None)
        if self.repair:
            command = with_repair(command, self.repair, step, self.place)
        running = None if context.replay.is_empty else unless_halted(step.halt, lambda: target.find(command))
        if running is None:
            if self.in_doubt:
                self.in_doubt = False
                check_place(step, self.place)
            prepare_workspace(step, self.place)
            if context.cancel.requested:
                return None
            self.may_have_begun = self.may_have_begun or record_may_begin(step, self.number, self.place)
            remember_vm(step, self.place)
            running = self._begin(target, command)
        # Of a fenced run the VM's copy stays the newest, for the process that continues the run.
        if not context.targets.fenced and not (command.container and command.container.read_only_workspace):
            context.workspace.mark_changed(side)
        return running, command

    def _begin(self, target: Target, command: Command) -> Running:
        """Begin the command. Raises `_Abandoned` if the run is cancelled before the place says whether it began."""
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
        limit = self.context.logs.reserve(self.context.run_dir, self.step.body.log_limit)
        if limit < self.step.body.log_limit:
            quota = replace(limits.RUN_LOGS, most=self.context.logs.most)
            words = f"{quota.exceeded('what the logs of the run take')}; the step's log has at most {limit:,} bytes"
            self.context.journal.append(Warned(words, self.path))
        return limit
