"""Keep the services of a step or group beside it: begin them before its body, and end them after it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec.structs import replace

from pccpipe.cancel import Cancel, Halt, unless_halted
from pccpipe.errors import ActionError, Halted, Lost, PccpipeError, RecordFull, Unavailable
from pccpipe.executor.attestation import unattested_services
from pccpipe.executor.command import STOP_MARGIN
from pccpipe.executor.context import STEP_LIMIT, LeftOpen, RunContext, StepOutcome, WalkPosition, halted
from pccpipe.executor.follow import FollowedResult, follow
from pccpipe.executor.input_request import InputState
from pccpipe.executor.replay import Turn
from pccpipe.executor.scope import ServiceView
from pccpipe.executor.waiting import Wait, wait_for_place
from pccpipe.layout import LOGS
from pccpipe.outcome import Code, Outcome, Place
from pccpipe.record.events import SERVICES, ServiceEnded, ServiceReady, ServiceStarted, TargetUnavailable, Warned
from pccpipe.record.logs import CommandLog
from pccpipe.record.step_path import file_name
from pccpipe.service import NotReady, ReadyCheck, RunningService, ServiceCommand, ServiceOwner
from pccpipe.spec.model import Step
from pccpipe.spec.services import Service

END_LIMIT = 30.0
"""Seconds after the end of a service for its last output."""
_SPOILED = frozenset({Outcome.SUCCEEDED, Outcome.SKIPPED, Outcome.FAILED, Outcome.TIMED_OUT})
"""The outcomes of an owner that the failure of its service explains, or replaces."""


def with_services(
    context: RunContext,
    position: WalkPosition,
    step: Step,
    turn: Turn,
    body: Callable[[WalkPosition, StepOutcome | None], StepOutcome],
) -> StepOutcome:
    """Do the body of a step or group with its services beside it; without any, just do it.

    The body gets the outcome that forbids it, if its services cannot be used: the `always:` of a group still runs.
    """
    if not step.services:
        return body(position, None)
    owned = OwnedServices(context, position, step, turn)
    if turn.ended:
        return body(position, None)  # a replay: nothing begins any more
    try:
        refused = owned.begin()
        ended = body(owned.position, refused)
    except (LeftOpen, RecordFull):
        owned.leave()
        raise
    except Exception:
        owned.end()
        raise
    early = owned.early_failure
    owned.end()
    return _explained(ended, early)


def _explained(ended: StepOutcome, failure: StepOutcome | None) -> StepOutcome:
    """Return the outcome of an owner; one of its services may have failed during its body."""
    if failure is None or ended.input is not InputState.NONE or ended.outcome not in _SPOILED:
        return ended
    if ended.code is failure.code:
        return ended
    before = f"; {ended.at or 'it'}: {ended.message}" if ended.message else ""
    return replace(failure, message=f"{failure.message}{before}", exit_code=ended.exit_code, logs=ended.logs, at="")


def _failed(words: str) -> StepOutcome | None:
    return StepOutcome(Outcome.FAILED, code=Code.SERVICE_ENDED, message=words) if words else None


class OwnedServices:
    """The services of one turn of a step or group."""

    def __init__(self, context: RunContext, position: WalkPosition, step: Step, turn: Turn) -> None:
        self._context = context
        self._outside = position
        self._step = step
        self._path = position.path_of(step.id)
        self._turn = turn
        self._living: list[_Living] = []
        self._gone = ""
        """Says which service an earlier process had, and this one does not find."""
        context.serials.skip(self._serial_name, turn.service_begins)

    @property
    def position(self) -> WalkPosition:
        """Return the position of the body, whose expressions know the services."""
        outside = self._outside
        views = {one.running.name: ServiceView(one.running.name, one.running.at) for one in self._living}
        scope = replace(outside.scope, services={**outside.scope.services, **views})
        forged = (*outside.forged, *unattested_services(outside.scope, self._step.services.values()))
        return replace(outside, scope=scope, services=(*outside.services, self), forged=forged)

    @property
    def network(self) -> str | None:
        """Return the network that the containers beside the services join."""
        return self._living[0].running.network if self._living else None

    @property
    def failure(self) -> StepOutcome | None:
        """Return the outcome of the owner if a service failed or is gone, so that no step may begin beside it."""
        return self.early_failure or _failed(self._gone)

    @property
    def early_failure(self) -> StepOutcome | None:
        """Return the outcome of the owner if a service failed by itself.

        One that a resumed run does not find may have been ended after its owner, so it fails no steps that are over.
        """
        return _failed(next(filter(None, (one.failure for one in self._living)), ""))

    def begin(self) -> StepOutcome | None:
        """Begin the services, or find those of an earlier process, until all are ready. Return why not, if so."""
        halt = Halt(self._context.cancel, self._outside.deadline)
        try:
            commands = {name: self._command(service) for name, service in self._step.services.items()}
            if not self._attached(commands):
                self._start(commands, halt)
            for one in self._living:
                if refused := one.wait_ready(halt):
                    words = self._context.masker.text(_why(one.running.name, refused))
                    return StepOutcome(Outcome.FAILED, code=Code.NOT_READY, message=words)
        except Halted:
            return halted(halt)
        except Lost as lost:
            return StepOutcome(Outcome.LOST, message=f"a service is lost: {lost.words}")
        except Unavailable as error:
            if fenced := self._context.targets.fenced:
                raise LeftOpen(fenced) from error
            words = f"its services: {error.words}"
            gone = TargetUnavailable(self._path, SERVICES, Place.CONTAINER, error.reason, words, error.hint)
            self._context.journal.append(gone)
            if self._context.cancel.requested:
                return StepOutcome(Outcome.CANCELLED, message=f"cancelled; {error.words}")
            return StepOutcome(Outcome.UNAVAILABLE, reason=error.reason, message=words)
        except PccpipeError as error:
            self._context.room.leave_if_full(error)
            code = error.code if isinstance(error, ActionError) else None
            return StepOutcome(Outcome.FAILED, code=code, message=str(error))
        return None

    def end(self) -> None:
        """End all services, the last one first."""
        for one in reversed(self._living):
            if (left := one.end(self._context.cancel.grace)) and not self._context.targets.fenced:
                self._context.journal.append(Warned(left, self._path))

    def leave(self) -> None:
        """Stop following them; another process of the run finds them again."""
        for one in self._living:
            one.leave()

    @property
    def _serial_name(self) -> str:
        return f"{self._path} services"

    def _attached(self, commands: Mapping[str, ServiceCommand]) -> bool:
        """Attach to the services of an earlier process; return False if they begin now.

        A service that is gone, although steps may have used it, does not begin again: its data would be missing.
        """
        known = [record for name in commands if (record := self._turn.services.get(name))]
        if len(known) < len(commands) or any(record.ended for record in known):
            if any(record.ready for record in known):
                words = "its services begin again, without their data: they ended when the run stopped or waited"
                self._context.journal.append(Warned(words, self._path))
            return False
        was_ready = all(record.ready for record in known)
        for record in known:
            name = record.started.service
            try:
                running = self._found(record.started, commands[name])
            except Lost as lost:
                if not was_ready:
                    self.leave()
                    self._living.clear()
                    return False
                self._gone = self._gone or f"service {name} is gone: {lost.words}"
                gone = ServiceEnded(self._path, name, 0.0, message=f"gone when the run was resumed: {lost.words}")
                self._context.journal.append(gone)
                continue
            living = _Living(self._context, self._path, running, self._step.services[name])
            self._living.append(living)
            living.follow(record.started, is_ready=record.ready)
        return True

    def _found(self, started: ServiceStarted, command: ServiceCommand) -> RunningService:
        """Find a service that an earlier process began. Raises `Lost`, `Unavailable`."""
        wait = Wait(Place.CONTAINER, self._path, self._outside.deadline, in_doubt=lambda _: True)
        find = lambda: self._context.targets.services.attach(started.token, command)  # noqa: E731
        halt = Halt(self._context.cancel, self._outside.deadline)
        return unless_halted(halt, lambda: wait_for_place(self._context, wait, find))

    def _start(self, commands: Mapping[str, ServiceCommand], halt: Halt) -> None:
        deadline = self._outside.deadline
        left = deadline.left if deadline else STEP_LIMIT
        owner = ServiceOwner(self._path, limit=left + self._context.project.lost_after + STOP_MARGIN)
        wait = Wait(Place.CONTAINER, self._path, deadline)

        def start() -> list[RunningService]:
            return list(self._context.targets.services.start(owner, list(commands.values())))

        def undo(started: list[RunningService]) -> None:
            for each in started:
                each.end(0.0)

        started = unless_halted(halt, lambda: wait_for_place(self._context, wait, start), undo=undo)
        self._context.used.add(Place.CONTAINER)
        serial = self._context.serials.next(self._serial_name)
        for running in started:
            living = _Living(self._context, self._path, running, self._step.services[running.name])
            self._living.append(living)
            living.follow_new(f"{file_name(self._path)}-{serial}.{running.name}")

    def _command(self, service: Service) -> ServiceCommand:
        """Evaluate a service. Raises ExpressionError, PccpipeError."""
        names = self._outside.scope.on(Place.CONTAINER.value).names
        ready = service.ready
        return ServiceCommand(
            name=service.name,
            image=service.image.render(names),
            env={name: template.render(names) for name, template in service.env.items()},
            secrets={name: self._context.secrets[name] for name in service.secrets},
            command=None if service.command is None else tuple(word.render(names) for word in service.command),
            ports=service.ports,
            ready=ReadyCheck(ready.run.render_for_shell(names), ready.every, ready.timeout) if ready else None,
            memory=service.memory,
            cpus=service.cpus,
            pids=service.pids,
            shm_size=service.shm_size,
            capabilities=service.capabilities,
            network=service.network,
            loosened=service.loosened,
        )


class _Living:
    """A service that this process follows, in a thread."""

    def __init__(self, context: RunContext, path: str, running: RunningService, service: Service) -> None:
        self.running = running
        self._context = context
        self._path = path
        self._service = service
        self._began = time.monotonic()
        self._thread: threading.Thread | None = None
        self._is_ready = self._is_ending = self._is_left = False
        self.failure = ""
        """Says how it failed by itself; empty while it runs, and after a good end."""

    def follow_new(self, log_id: str) -> None:
        """Record that it began, and follow it into a new log."""
        context = self._context
        limit = context.logs.reserve(context.run_dir, self._service.log_limit)
        log = CommandLog.create(context.run_dir, Path(LOGS), log_id, short=False, limit=limit, room=context.room)
        running = self.running
        started = ServiceStarted(
            self._path,
            running.name,
            running.running.isolation,
            log.stdout_name,
            log.stderr_name,
            running.token,
            self._service.secrets,
            self._service.loosened,
        )
        context.journal.append(started)
        self._follow(log)

    def follow(self, started: ServiceStarted, *, is_ready: bool) -> None:
        """Follow one that an earlier process began, from its first byte."""
        context, self._is_ready = self._context, is_ready
        limit = context.logs.reserve(context.run_dir, self._service.log_limit)
        names = started.stdout, started.stderr
        self._follow(CommandLog(context.run_dir, *names, from_start=True, limit=limit, room=context.room))

    def wait_ready(self, halt: Halt) -> NotReady | None:
        """Wait until it is ready, and record that. Raises Halted, `Unavailable`, `Lost`."""
        if self._is_ready:
            return None
        began = time.monotonic()
        if refused := self.running.wait_ready(halt):
            return refused
        self._is_ready = True
        outside = self.running.at(Place.VM) or self.running.at(Place.LOCAL)
        ports = {str(own): port for own, port in outside.ports.items()} if outside else {}
        seconds = round(time.monotonic() - began, 3)
        self._context.journal.append(ServiceReady(self._path, self.running.name, seconds, ports))
        return None

    def end(self, grace: float) -> str:
        """End it, and wait until its end is recorded; return what could not be removed."""
        self._is_ending = True
        left = self.running.end(grace)
        if self._thread:
            self._thread.join(END_LIMIT)
            if self._thread.is_alive():
                self.leave()
                self._record(FollowedResult(None, message="its engine did not say how it ended"), 0)
        return left

    def leave(self) -> None:
        """Stop following it, and leave it as it is."""
        self._is_left = True
        self.running.running.let_go()

    def _follow(self, log: CommandLog) -> None:
        # Nothing but its end ends it: steps beside it may need it to end in order.
        context = replace(self._context, cancel=Cancel())

        def work() -> None:
            try:
                followed = follow(context, f"{self._path}:{self.running.name}", self.running.running, log, None)
            except (PccpipeError, OSError) as error:
                followed = FollowedResult(None, message=str(error))
            log.close()
            context.logs.settle(log)
            if not self._is_left:
                self._record(followed, log.dropped)

        self._thread = threading.Thread(target=work, name="pccpipe-service", daemon=True)
        self._thread.start()

    def _record(self, followed: FollowedResult, dropped: int) -> None:
        exit_, name = followed.exit, self.running.name
        message = followed.message
        if exit_ and exit_.code and not self._is_ending:
            memory = ": killed: out of memory" if exit_.out_of_memory else ""
            message = f"exit code {exit_.code}{memory}"
        if (exit_ is None or exit_.code) and not self._is_ending:
            self.failure = f"service {name} ended: {message}"
        event = ServiceEnded(
            self._path,
            name,
            round(time.monotonic() - self._began, 3),
            exit_.code if exit_ else None,
            out_of_memory=bool(exit_ and exit_.out_of_memory),
            message=message,
            with_owner=self._is_ending,
            log_dropped=dropped,
        )
        with contextlib.suppress(RecordFull):
            self._context.journal.append(event)


def _why(name: str, refused: NotReady) -> str:
    lines = refused.output.strip().splitlines()
    return f"service {name} is not ready: {refused.words}" + (f"; it says: {lines[-1].strip()}" if lines else "")
