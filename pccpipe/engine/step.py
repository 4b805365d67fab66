"""One run step: its places in turn, its attempts at each, and what came of them.

The rule that everything here serves: a step goes on to its fallback only when `Target.start` (or what must come before
it) raised `Unavailable`, which says that the command certainly never began, for a reason that is the place's own state,
and before code of an agent could have caused it. No text, no exit code, no log is looked at for that.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from pccpipe import limits
from pccpipe.engine.access import Access, Budget, access_of, budget_of
from pccpipe.engine.attestation import is_unattested, runs_as_login, unattested_gates, unattested_reads
from pccpipe.engine.command import asked_settings, make_command
from pccpipe.engine.context import Ended, Here, LeftOpen, Parts
from pccpipe.engine.exposure import Level, is_agent, level_of
from pccpipe.engine.follow import Followed, follow
from pccpipe.engine.halt import StepHalt
from pccpipe.engine.past import Visit
from pccpipe.engine.patience import Wait, is_away, with_patience
from pccpipe.engine.places import first_way, following_way, refusal
from pccpipe.engine.result import masked_result, parse_result, result_target
from pccpipe.engine.shortfall import shortfalls
from pccpipe.errors import (
    ActionError,
    Halted,
    Lost,
    PccpipeError,
    RecordFull,
    ResultError,
    Unavailable,
    WorkspaceGone,
)
from pccpipe.outcome import ENGINE_AWAY, FINAL, MAY_FALL_BACK, VM_AWAY, Code, IsolationMode, Outcome, Place, Reason
from pccpipe.record.events import (
    CommandEnded,
    CommandStarted,
    MayHaveBegun,
    StepDowngraded,
    StepRetrying,
    TargetUnavailable,
    Warned,
)
from pccpipe.record.files import write_atomically
from pccpipe.record.logs import CommandLog
from pccpipe.spec.model import ResultSpec, Retry, Run, Step, Where
from pccpipe.targets.abandon import unless_halted
from pccpipe.targets.base import Command, ContainerSettings, Exit, Isolation, Running, Target
from pccpipe.values import Json
from pccpipe.workspace.base import Side

ATTACH_EVERY = 5.0
LAST_KNOWN = "the VM's copy of the workspace is out of reach: the step works on the copy here, as last known"
START_GRACE = 0.5
"""Seconds for which a cancel waits for the word that a command has begun, which can then be ended in order."""
ACCEPT = (
    "pccpipe doctor, then pccpipe resume {run}; or let it fall back all the same: "
    "pccpipe resume {run} --accept-fallback {step}"
)
CHOOSE_ENGINE = "`isolation_mode: container` in the project file runs it on this machine's engine, `vm` on the VM's"


class _LeftAlone(PccpipeError):
    """The run was cancelled while a machine that may have the command did not answer."""


LOST_OUTPUT = "some of its output may be lost: the engine was restarted while it ran"


def run_step(parts: Parts, here: Here, step: Step, body: Run, visit: Visit) -> Ended:
    """Run a step's command: at the place it asks for, or where the project leads that; else at its fallback."""
    return _RunStep(parts, here, step, body, visit, is_replay=visit.began_at is not None).run()


def with_retries(
    parts: Parts, here: Here, path: str, retry: Retry, attempt: Callable[[int], Ended], visit: Visit, first: int = 1
) -> Ended:
    """Call `attempt(number)` until its outcome is none to try again after, at most `retry.attempts` times.

    A leak, or a workspace that may not go up, is none: a second try could only do the same. Nor is a place that was
    waited for and stayed away.
    """
    last = first + retry.attempts - 1
    for number in range(first, last + 1):
        ended = attempt(number)
        if number == last or ended.outcome not in retry.outcomes or parts.cancel.requested or ended.code in FINAL:
            break
        if earlier := visit.take(StepRetrying):
            # The rest of a wait that the process before did not end. A clock that was set back makes it no longer.
            wait = min(earlier.wait, max(0.0, visit.due.popleft() - time.time()))
            if not _waited(parts, here, wait):
                break
            continue
        if ended.outcome is Outcome.UNAVAILABLE and is_away(parts, ended.reason):
            break
        wait = retry.backoff * 2 ** (number - first)
        if here.deadline:
            wait = min(wait, here.deadline.left)
        parts.journal.append(StepRetrying(path, number + 1, last, ended.outcome, wait))
        if not _waited(parts, here, wait):
            break
    return ended


def _waited(parts: Parts, here: Here, seconds: float) -> bool:
    """Wait before the next try; say whether there is to be one."""
    return not (seconds and parts.cancel.wait(seconds)) and not (here.deadline and here.deadline.passed)


class _RunStep(Struct):
    parts: Parts
    here: Here
    step: Step
    body: Run
    visit: Visit
    attempts: int = 0
    """How many were made so far, at all places."""
    budget: Budget | None = None
    is_replay: bool = False
    """Whether the attempts still come from the record."""
    in_doubt: bool = False
    """Whether the attempt may have begun its command in an earlier process that could not note it."""
    may_have_begun: bool = False
    """Whether the record says so of this attempt already."""

    @property
    def path(self) -> str:
        return self.here.path_of(self.step.id)

    @property
    def _halt(self) -> StepHalt:
        return StepHalt(self.parts.cancel, self.here.deadline)

    def run(self) -> Ended:
        place, where = self._first
        ended = self._tries(place, where)
        following = self._following(place)
        if ended.outcome is not Outcome.UNAVAILABLE or following is None or self.parts.cancel.requested:
            return ended
        assert ended.reason is not None
        asked, fallback = self.body.where.on, following[0]
        # Refused before, it may have a person's consent now.
        was_refused = self.visit.take(TargetUnavailable) is not None
        if self.visit.next(StepDowngraded) is None:
            if ended.reason not in MAY_FALL_BACK:
                return replace(ended, message=f"{ended.message} (no reason to fall back)")
            if no := self._too_late(fallback):
                self.parts.serials.next(self.step.id)
                if not was_refused:
                    number = self.attempts + 1
                    self._unavailable(TargetUnavailable(self.path, number, fallback, no.reason, no.words, no.hint))
                return replace(ended, reason=no.reason, message=f"{ended.reason}: {ended.message}; {no.words}")
        self.parts.note(self.visit, StepDowngraded(self.path, asked, fallback, ended.reason, ended.message))
        return self._tries(*following)

    @property
    def _first(self) -> tuple[Place, Where]:
        return first_way(self.parts.project.isolation_mode, self.body)

    def _following(self, place: Place) -> tuple[Place, Where] | None:
        """Where the step may go when `place` is unavailable."""
        allowed = self.parts.fallback_allowed
        return following_way(self.parts.project.isolation_mode, self.body, place, allowed=allowed)

    def _tries(self, place: Place, where: Where) -> Ended:
        return with_retries(
            self.parts,
            self.here,
            self.path,
            self.step.retry,
            lambda number: self._attempt(number, place, where),
            self.visit,
            first=self.attempts + 1,
        )

    @property
    def _is_consented(self) -> bool:
        return self.step.id.partition("[")[0] in self.parts.accepted

    @property
    def _is_agent(self) -> bool:
        return is_agent(self.parts.pipeline, self.body)

    @property
    def _forged_reads(self) -> tuple[str, ...]:
        return unattested_reads(self.here.scope, self.parts.pipeline, self.step, self.body)

    def _is_unattested(self, place: Place) -> bool:
        """Say whether its result could be forged: at its place, or by what it was made from."""
        return is_unattested(self.parts, self.body, place) or bool(self._forged_reads)

    def _too_late(self, place: Place) -> Unavailable | None:
        """Say why the step may no longer fall back to `place`; None: it may."""
        if self._is_consented:
            return None
        level = level_of(place, agent=self._is_agent)
        hint = ACCEPT.format(run=self.parts.run_id, step=self.step.id.partition("[")[0])
        if self.parts.exposure.forbids(level):
            words = f"an agent's code may have run already, so the step does not fall back to {place}"
            return Unavailable(Reason.AFTER_UNTRUSTED_CODE, words, hint)
        leaves_vm = self.parts.project.isolation_mode is IsolationMode.VM and level < Level.VM
        if leaves_vm and (earlier := self.parts.targets.vm_history):
            return Unavailable(Reason.VM_NOT_TRUSTED, f"{earlier}, so the step does not fall back to {place}", hint)
        return None

    def _unavailable(self, event: TargetUnavailable) -> None:
        self.parts.journal.append(event)
        self.parts.exposure.note(event)

    def _attempt(self, number: int, place: Place, where: Where) -> Ended:
        self.attempts = number
        serial = self.parts.serials.next(self.step.id)
        self.may_have_begun = self.visit.take(MayHaveBegun) is not None
        if gone := self.visit.take(TargetUnavailable):
            return Ended(Outcome.UNAVAILABLE, reason=gone.reason, message=gone.words)
        if again := self.visit.next(StepRetrying):
            # As above: the attempt that was under way is one that comes later.
            return Ended(again.after)  # it failed before anything could begin
        started = self.visit.take(CommandStarted)
        in_doubt, self.is_replay = self.is_replay and started is None, False
        self.in_doubt = in_doubt and place is not Place.LOCAL and self._could_have_begun(place)
        if started and (over := self.visit.take(CommandEnded)):
            # What was noted goes on to the attempt that was under way.
            self.is_replay = True
            if self._is_begun_again:
                return self._attempt(number, place, where)
            return self._remembered(started, over, place)
        try:
            access = self._access(number, place, where)
        except PccpipeError as error:
            return Ended(Outcome.FAILED, message=str(error))
        try:
            with contextlib.closing(access):
                return self._run_attempt(number, place, where, serial, started, access)
        finally:
            self.parts.exposure.settle(self.path)

    def _could_have_begun(self, place: Place) -> bool:
        """Say whether an earlier process can have begun the command without a word of it in the record."""
        says_before = self.parts.past.tells_agents and (place is Place.CONTAINER or self._is_agent)
        return self.may_have_begun or not says_before

    def _stays_in_doubt(self, reason: Reason, place: Place) -> bool:
        """Say whether a place that can't be used now, and may have the command already, keeps it from any other.

        A run that is exposed stops then, and asks again when it is resumed; unless it was an agent that may have begun.
        """
        if not self.in_doubt or reason in VM_AWAY | ENGINE_AWAY or self.may_have_begun:
            return self.in_doubt
        return place in self.parts.used and not self.parts.exposure.is_exposed

    @property
    def _is_begun_again(self) -> bool:
        """Say whether an attempt whose command is over has another one, since its place became unusable."""
        if self.visit.is_reopened and not self.visit.noted:
            self.visit.is_reopened = self.is_replay = False
            return True
        return self.visit.next(MayHaveBegun) is not None or self.visit.next(CommandStarted) is not None

    def _access(self, number: int, place: Place, where: Where) -> Access:
        """The attempt's secrets, with the tokens that an earlier process has given to its command."""
        if self.budget is None:
            self.budget = budget_of(self.parts, self.here, self.path, self.body, self.visit)
        access = access_of(self.parts, self.here, self.body, where, place, self.budget)
        for given in self.visit.given:
            if given.attempt == number:
                access.take_up(given)
        return access

    def _run_attempt(
        self, number: int, place: Place, where: Where, serial: int, started: CommandStarted | None, access: Access
    ) -> Ended:
        began = time.monotonic()
        settings = None
        try:
            settings = asked_settings(where, place, self.here)
            if started:
                running, log = self._attached(started, place)
            else:
                access.issue(self.path, number)
                wait = Wait(
                    place,
                    self.path,
                    self.here.deadline,
                    lambda reason: self._stays_in_doubt(reason, place),
                    self._is_consented,
                )
                begun = with_patience(self.parts, wait, lambda: self._begun(number, place, where, serial, access))
                if begun is None:
                    return Ended(Outcome.CANCELLED, message="cancelled")
                running, log = begun
        except Halted:
            return self._halt.ended
        except Unavailable as no:
            self.parts.room.leave_if_full(no)
            self._leave_open(Outcome.UNAVAILABLE, no.reason)
            if self._stays_in_doubt(no.reason, place):
                return self._lost(number, f"it may have begun before the run was resumed: {no.words}")
            self._unavailable(TargetUnavailable(self.path, number, place, no.reason, no.words, no.hint, settings))
            if self.parts.cancel.requested:
                return Ended(Outcome.CANCELLED, message=f"cancelled; {no.words}")
            return Ended(Outcome.UNAVAILABLE, reason=no.reason, message=no.words)
        except Lost as lost:
            self._leave_open(Outcome.LOST)
            return self._lost(number, lost.words)
        except _LeftAlone as left:
            words = f"cancelled; {left}: it may go on there until its time limit"
            self.parts.journal.append(CommandEnded(self.path, number, Outcome.CANCELLED, message=words))
            return Ended(Outcome.CANCELLED, message=words)
        except PccpipeError as error:
            self.parts.room.leave_if_full(error)
            return Ended(Outcome.FAILED, message=str(error))
        try:
            followed = follow(self.parts, self.path, running, log, self.here.deadline)
            ended = self._judge(running, followed, place, log)
            self._leave_open(ended.outcome, ended.reason)
        except Unavailable as no:
            self._leave_open(Outcome.UNAVAILABLE, no.reason)
            # What it left there goes on, and may touch all that comes after it.
            followed = Followed(None)
            ended = Ended(Outcome.UNAVAILABLE, reason=no.reason, message=no.words)
        except RecordFull:
            if self.parts.cancel.requested:
                running.stop(self.parts.cancel.grace)
            running.let_go()
            raise
        finally:
            log.close()
            self.parts.logs.settle(log)
            access.close()
        if log.failure and ended.outcome in {Outcome.SUCCEEDED, Outcome.FAILED}:
            words = f"{log.stdout_path.parent}: its log cannot be written: {log.failure}"
            ended = replace(ended, outcome=Outcome.FAILED, message=words)
        if self.budget and self.budget.exceeded and ended.outcome is not Outcome.SUCCEEDED:
            how = f" ({ended.message})" if ended.message else ""
            words = f"stopped by its budget: {self.budget.exceeded}; raise `{self.budget.key}` of {self.step.id}{how}"
            code = ended.code or (Code.BUDGET_EXCEEDED if ended.outcome is Outcome.FAILED else None)
            ended = replace(ended, message=words, code=code)
        elif access.trouble and ended.outcome is Outcome.FAILED:
            ended = replace(ended, message=f"{access.trouble} ({ended.message})")
        elif self.budget and (over := self.budget.overdrawn):
            self.parts.journal.append(Warned(over, self.path))
        exit_ = followed.exit
        self.parts.journal.append(
            CommandEnded(
                self.path,
                number,
                ended.outcome,
                exit_.code if exit_ else None,
                exit_.signal if exit_ else None,
                bool(exit_ and exit_.out_of_memory),
                time.monotonic() - began,
                ended.message,
                ended.code,
                ended.reason,
                log.dropped,
            ),
            # Not before: until the outcome is on disk, the target's copy of the output is the one that counts.
            when_synced=running.discard,
        )
        return ended

    def _leave_open(self, outcome: Outcome, reason: Reason | None = None) -> None:
        """Raise `LeftOpen` for an attempt that ends so only because the VM was taken over from the run."""
        fenced = self.parts.targets.fenced
        if fenced and (reason is Reason.FENCED or outcome in {Outcome.LOST, Outcome.UNAVAILABLE}):
            raise LeftOpen(fenced)

    def _lost(self, number: int, words: str) -> Ended:
        self.parts.journal.append(CommandEnded(self.path, number, Outcome.LOST, message=words))
        return Ended(Outcome.LOST, message=words)

    def _begun(
        self, number: int, place: Place, where: Where, serial: int, access: Access
    ) -> tuple[Running, CommandLog] | None:
        """The command, begun; or found, if a process that was killed right then began it. None: cancelled before."""
        started = self._start(number, place, where, serial, access)
        if started is None:
            return None
        running, command = started
        log = self._open_log(command, place)
        try:
            self._tell_start(number, command, running, log)
        except BaseException:
            running.let_go()
            log.close()
            self.parts.logs.settle(log)
            raise
        return running, log

    def _attached(self, started: CommandStarted, place: Place) -> tuple[Running, CommandLog]:
        """A command that an earlier process began. Raises `Lost` when its place stays away; `_LeftAlone`."""
        limit = self.parts.project.lost_after
        deadline = time.monotonic() + limit
        while True:
            if self.parts.cancel.requested and self.parts.absence.is_known:
                raise _LeftAlone("its machine is away")
            try:
                running = unless_halted(StepHalt(self.parts.cancel, None), lambda: self._attach(started, place))
                break
            except Halted as halted:
                raise _LeftAlone("its machine did not answer") from halted
            except Unavailable as no:
                if time.monotonic() + ATTACH_EVERY > deadline:
                    raise Lost(f"{no.words} (since the run was resumed, {limit:g} s ago)") from no
                if self.parts.cancel.wait(ATTACH_EVERY):
                    raise _LeftAlone(no.words) from no
        if not started.had.read_only_workspace:
            self.parts.workspace.touched(self.parts.side_of(place))
        return running, CommandLog(
            self.parts.run_dir,
            started.stdout,
            started.stderr,
            from_start=True,
            limit=self._log_limit(),
            room=self.parts.room,
        )

    def _attach(self, started: CommandStarted, place: Place) -> Running:
        return self._opened(place).attach(started.token)

    def _remembered(self, started: CommandStarted, over: CommandEnded, place: Place) -> Ended:
        """The attempt that an earlier process brought to its end, with its result as that left it."""
        log = (self.parts.run_dir / started.stdout, self.parts.run_dir / started.stderr)
        ended = Ended(over.outcome, over.exit_code, over.reason, over.code, over.message, logs=log)
        if self.body.result and over.outcome is Outcome.SUCCEEDED:
            path = self._result_path(self.body.result, place)
            target = result_target(path, self.parts.run_dir)
            try:
                value = parse_result(target.read_bytes(), target.name, self.body.result.schema_json)
            except (OSError, ResultError) as error:
                return replace(ended, outcome=Outcome.FAILED, message=f"the result is no longer there: {error}")
            ended = replace(ended, result=value, result_path=path, unattested=self._is_unattested(place))
        return ended

    def _start(
        self, number: int, place: Place, where: Where, serial: int, access: Access
    ) -> tuple[Running, Command] | None:
        parts = self.parts
        if self.body.result:
            # Wrong, it would be found when the agent's hour is over.
            result_target(self._result_path(self.body.result, place), parts.run_dir)
        if not self.in_doubt:
            self._check_place(place)
        side = parts.side_of(place)
        target = unless_halted(self._halt, lambda: self._opened(place))
        command = make_command(parts, self.here, self.step, self.body, where, place, serial, access)
        running = None if parts.past.is_empty else unless_halted(self._halt, lambda: target.find(command))
        if running is None:
            if self.in_doubt:
                self.in_doubt = False
                self._check_place(place)
            self._prepare(place, side)
            if parts.cancel.requested:
                return None
            self._tell_what_may_begin(number, place)
            running = self._begin(target, command, place)
        # The run's copy stays the VM's, for who goes on with the run.
        if not parts.targets.fenced and not (command.container and command.container.read_only_workspace):
            parts.workspace.touched(side)
        return running, command

    def _begin(self, target: Target, command: Command, place: Place) -> Running:
        """Begin the command. Raises `_LeftAlone` if the run is cancelled while the VM does not say whether it began."""
        if place is not Place.VM:
            return target.start(command)
        try:
            return unless_halted(
                StepHalt(self.parts.cancel, None),
                lambda: target.start(command),
                grace=START_GRACE,
                undo=lambda running: running.stop(0),
            )
        except Halted as halted:
            raise _LeftAlone("the VM did not say whether it began") from halted

    def _opened(self, place: Place) -> Target:
        target = self.parts.targets[place]
        target.open()
        return target

    def _check_place(self, place: Place) -> None:
        """Raise `Unavailable` if the step may not begin there, whatever the place's state."""
        parts = self.parts
        if refused := refusal(parts.project.isolation_mode, self.body):
            raise Unavailable(Reason.ENGINE_MISSING, refused, CHOOSE_ENGINE)
        if place is not self._first[0] and (no := self._too_late(place)):
            raise no
        if self.body.isolation_required:
            forged = list(dict.fromkeys((*unattested_gates(self.here), *self._forged_reads)))
            if self.body.result and is_unattested(parts, self.body, place):
                forged.append(self.step.id)
            if forged:
                words = f"`isolation: required`, and a command on the VM could forge the result of {', '.join(forged)}"
                raise Unavailable(
                    Reason.UNATTESTED, words, "give the VM's workspace code an account: `vm: {run_as: ...}`"
                )

    def _prepare(self, place: Place, side: Side) -> None:
        parts = self.parts
        if parts.targets.fenced:
            if parts.workspace.lay_out(self._halt):
                parts.journal.append(Warned(LAST_KNOWN, self.path))
            return
        last_known = self._is_consented and place is not self._first[0]
        try:
            sent = parts.workspace.prepare(side, self._halt, or_last_known=last_known)
        except WorkspaceGone:
            raise  # an earlier step's doing, and not the place's state
        except ActionError as error:
            raise Unavailable(Reason.WORKSPACE_REFUSED, error.message, error.hint) from error
        if sent is not None and sent.stale:
            parts.journal.append(Warned(LAST_KNOWN, self.path))
        if sent is not None and sent.refused:
            text = f"not everything of the VM's copy of the workspace came home: {'; '.join(sent.refused)}"
            parts.journal.append(Warned(text, self.path))

    def _tell_what_may_begin(self, number: int, place: Place) -> None:
        """Put on disk, before it begins, that code of an agent may run at `place`."""
        parts = self.parts
        if (place is Place.CONTAINER or self._is_agent) and not self.may_have_begun:
            level = level_of(place, agent=self._is_agent)
            consented = place is not self._first[0] and parts.exposure.forbids(level)
            event = MayHaveBegun(self.path, number, place, consented)
            parts.exposure.note(event)
            parts.journal.append(event)
            self.may_have_begun = True
        if parts.exposure.least is not None and runs_as_login(parts, self.body, place):
            parts.targets.remember_vm()

    def _open_log(self, command: Command, place: Place) -> CommandLog:
        folder = Path("logs")
        if self.body.result:
            folder = Path(self._result_path(self.body.result, place)).parent
        return CommandLog.create(
            self.parts.run_dir,
            folder,
            command.id,
            short=bool(self.body.result),
            limit=self._log_limit(),
            room=self.parts.room,
        )

    def _log_limit(self) -> int:
        limit = self.parts.logs.take(self.parts.run_dir, self.body.log_limit)
        if limit < self.body.log_limit:
            quota = replace(limits.RUN_LOGS, most=self.parts.logs.most)
            words = f"{quota.exceeded('what the logs of the run take')}; the step's log has at most {limit:,} bytes"
            self.parts.journal.append(Warned(words, self.path))
        return limit

    def _result_path(self, spec: ResultSpec, place: Place) -> str:
        return spec.path.render(self.here.scope.on(place).names)

    def _tell_start(self, number: int, command: Command, running: Running, log: CommandLog) -> None:
        as_login = runs_as_login(self.parts, self.body, running.isolation.place)
        event = CommandStarted(
            self.path,
            number,
            command.id,
            running.isolation,
            log.stdout_name,
            log.stderr_name,
            running.token,
            command.container,
            as_login,
        )
        self.parts.journal.append(event)
        self.parts.exposure.note(event)
        if as_login:
            self.parts.past.login_began = True
        self.parts.used.add(running.isolation.place)
        if command.container and running.isolation.image:
            self._tell_shortfalls(command.container, running.isolation)
            self._tell_changed_image(running.isolation)

    def _tell_changed_image(self, had: Isolation) -> None:
        """Warn, once a run, of an image behind whose name there is another one than when the VM was provisioned."""
        told = self.parts.past.changed_images
        if had.image and had.image_digest and had.image_provisioned and had.image not in told:
            told.add(had.image)
            before, now = (digest.removeprefix("sha256:")[:12] for digest in (had.image_provisioned, had.image_digest))
            words = f"the image {had.image} changed since the VM was provisioned: it was {before} and is {now}"
            self.parts.journal.append(Warned(f"{words}; fix: pccpipe provision", self.path))

    def _tell_shortfalls(self, asked: ContainerSettings, had: Isolation) -> None:
        lacking = "; ".join(shortfalls(asked, had))
        if lacking:
            self.parts.journal.append(Warned(f"its container has not all that was asked: {lacking}", self.path))

    def _judge(self, running: Running, followed: Followed, place: Place, log: CommandLog) -> Ended:
        """The outcome of an attempt whose command began."""
        logs = (log.stdout_path, log.stderr_path)
        exit_ = followed.exit
        if exit_ is None:
            if place is not Place.LOCAL:
                self.parts.absence.since(time.monotonic() - self.parts.project.lost_after)
            return Ended(Outcome.LOST, message=followed.message, logs=logs)
        if exit_.output_lost and place is Place.CONTAINER:
            self.parts.journal.append(Warned(LOST_OUTPUT, self.path))
        elif exit_.output_lost:
            words = "the end of its output is lost: it could not be kept where it ran (is the disk there full?)"
            self.parts.journal.append(Warned(f"{words}; free some space: pccpipe gc", self.path))
        if exit_.left_processes and not followed.cancelled:
            words = "processes that it left in the background were ended: nothing of a step outlives it"
            self.parts.journal.append(Warned(words, self.path))
        ended = Ended(Outcome.FAILED, exit_code=exit_.code, message=_sentence(exit_), logs=logs)
        if followed.cancelled:
            ended = replace(ended, outcome=Outcome.CANCELLED, message="cancelled")
        elif followed.timed_out or exit_.timed_out:
            ended = replace(ended, outcome=Outcome.TIMED_OUT, message=followed.message or "its time limit has passed")
        elif exit_.code == 0:
            ended = replace(ended, outcome=Outcome.SUCCEEDED, message="")
        if self.body.result:
            return self._with_result(ended, running, self.body.result, place)
        return ended

    def _with_result(self, ended: Ended, running: Running, spec: ResultSpec, place: Place) -> Ended:
        """The attempt with its result; a result that is missing or wrong makes a succeeded one FAILED."""
        try:
            path, value = self._take_result(running, spec, place)
        except ResultError as error:
            failed = {Outcome.SUCCEEDED}
            if error.code is Code.SECRET_IN_OUTPUT:
                failed.add(Outcome.FAILED)
            if ended.outcome not in failed:
                return ended
            return replace(ended, outcome=Outcome.FAILED, code=error.code, message=error.message)
        except (Unavailable, Lost, Halted) as error:
            if ended.outcome is not Outcome.SUCCEEDED:
                return ended
            return replace(ended, outcome=Outcome.LOST, message=f"its result could not be fetched: {error}")
        return replace(ended, result=value, result_path=path, unattested=self._is_unattested(place))

    def _take_result(self, running: Running, spec: ResultSpec, place: Place) -> tuple[str, Json]:
        path = self._result_path(spec, place)
        target = result_target(path, self.parts.run_dir)
        halt = StepHalt(self.parts.cancel, None)
        fetched = unless_halted(halt, lambda: running.fetch(target.name, limits.RESULT.most))
        data, had_secret = masked_result(fetched, target.name, self.parts.masker)
        # Written before it is checked: a wrong result is what somebody will want to look at.
        self.parts.room.made(lambda: write_atomically(target, data))
        if had_secret:
            raise ResultError(f"a secret's value stands in its result; it is masked in {path}", Code.SECRET_IN_OUTPUT)
        return path, parse_result(data, target.name, spec.schema_json)


def _sentence(exit_: Exit) -> str:
    if exit_.out_of_memory:
        return f"killed: out of memory (exit code {exit_.code})"
    if exit_.signal:
        return f"ended by signal {exit_.signal} (exit code {exit_.code})"
    return f"exit code {exit_.code}"
