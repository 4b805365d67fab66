"""One run's life, top to bottom: its parts, the claim of the VM, the walk through its steps, its end.

begin.py has the checks that come before.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pccpipe.cancel import Cancel, Halt, unless_halted
from pccpipe.errors import Halted, RecordFull, RunHeld, Unavailable, UsageError, VmBusy
from pccpipe.executor.context import RunContext, Serials
from pccpipe.executor.replay import Replay
from pccpipe.outcome import Outcome, Place, Reason
from pccpipe.policy.enforce import hold, readable_files
from pccpipe.record import cancel_requests as requests
from pccpipe.record.due import is_due
from pccpipe.record.event_log import EventLog
from pccpipe.record.events import Event, Happening, Warned
from pccpipe.record.fence import fence_run, refuse_links
from pccpipe.record.journal import Journal, Listener, make_run_dir, read_events, refuse_missing
from pccpipe.record.lock import RunLock
from pccpipe.record.logs import LogQuota
from pccpipe.record.room import Room
from pccpipe.record.run_events import (
    Cancelling,
    RunEnded,
    RunEnding,
    RunQueued,
    RunResumed,
    RunStarted,
    RunStopped,
    RunWaiting,
)
from pccpipe.record.state import WAITING, WAITING_FOR_MODEL, RunState, state_of
from pccpipe.record.state_file import StateFile, catch_up
from pccpipe.secrets.mask import mask_error
from pccpipe.secrets.prices import load_prices
from pccpipe.secrets.proxy.proxy import Proxy
from pccpipe.session.begin import accepted_fallbacks, check_engine, read_values, room_to_begin
from pccpipe.session.end import name_daemons, remove_copies
from pccpipe.session.job import Caller, Job
from pccpipe.session.kept import keep_pipeline, kept_pipeline, kept_project, same_project
from pccpipe.session.money import check_prices, day_account
from pccpipe.session.result import RunResult
from pccpipe.session.targets import Folders, ProjectTargets
from pccpipe.spec.model import Build, Download, Pipeline, Run, Upload
from pccpipe.spec.project import identity
from pccpipe.spec.project_model import Project
from pccpipe.values import Json
from pccpipe.version import __version__

if TYPE_CHECKING:
    from pccpipe.session.vm import ProjectVm


def begin(job: Job, caller: Caller) -> RunResult:
    """Make the record of a new run, and run it to its end. Raises UsageError if there is such a run already."""
    folders = job.folders
    refuse_links(folders.user, folders.record, folders.state)
    make_run_dir(folders.record)
    # It belongs to a run whose record is gone, or an author of the workspace put it there.
    shutil.rmtree(folders.state, ignore_errors=True)
    with room_to_begin(folders.record), RunLock(folders.record):
        keep_pipeline(job.pipeline, folders.record)
        result = _run(job, _started(job, caller), [], caller)
    return _ended_if_cancelled(result, job.project, caller)


def resume(
    record: Path, project: Project | None, accept_fallback: Collection[str], caller: Caller, *, if_due: bool = False
) -> RunResult:
    """Resume the run of a record; with `if_due`, only if it waits for a model and is due.

    Raises UsageError, as pccpipe.api.resume says.
    """
    result = _resumed(record, project, accept_fallback, caller, if_due=if_due)
    return _ended_if_cancelled(result, project, caller)


def _ended_if_cancelled(result: RunResult, project: Project | None, caller: Caller) -> RunResult:
    """Return the result; a run that was cancelled while a step beside another one began to wait ends first."""
    if not caller.cancel.requested or result.state.status not in {WAITING, WAITING_FOR_MODEL}:
        return result
    with contextlib.suppress(RunHeld):  # another process ends it
        return _resumed(result.record, project, (), caller)
    return result


def _resumed(
    record: Path, project: Project | None, accept_fallback: Collection[str], caller: Caller, *, if_due: bool = False
) -> RunResult:
    run_id = record.name
    refuse_links(Path.cwd(), record)
    refuse_missing(record)
    with room_to_begin(record), RunLock(record):
        # Read under the lock: until then, another process may have continued the run.
        events = list(read_events(record))
        state = state_of(events)
        if if_due and not is_due(state, time.time()):
            raise RunHeld(f"run {run_id}: another process has continued it")
        began = next((event.what for event in events if isinstance(event.what, RunStarted)), None)
        if began is None:
            raise UsageError(f"cannot resume {run_id}: it ended before its first event")
        ended = next((event.what for event in events if isinstance(event.what, RunEnded)), None)
        if ended:
            catch_up(record, events)
            raise UsageError(f"run {run_id} has ended: {ended.status}", f"to see it: pccpipe show {run_id}")
        if state.open_questions and not caller.cancel.requested:
            return RunResult(record, state)
        if began.policy and caller.policy is None:
            hint = "give the policy again: --policy FILE, or `policy=` in the library"
            raise UsageError(f"run {run_id}: it began under a policy, and would be resumed without one", hint)
        pipeline = kept_pipeline(record, began, caller.policy)
        project = same_project(began, project or kept_project(began, caller.policy))
        pipeline = hold(caller.policy, pipeline, project, began.inputs)
        check_engine(pipeline, project)
        check_prices(pipeline, project, began.inputs)
        secrets = read_values(pipeline, caller)
        folders = Folders.of(record.parent, run_id, Path(began.workspace))
        refuse_links(folders.user, record, folders.state)
        accepted = accepted_fallbacks(pipeline, accept_fallback)
        consent = (*state.accepted_fallbacks, *accepted)
        job = Job(run_id, pipeline, project, folders, began.inputs, secrets, began.fallback_allowed, consent)
        resumed = RunResumed(__version__, socket.gethostname(), os.getpid(), accepted)
        return _run(job, resumed, events, caller)


def _started(job: Job, caller: Caller) -> RunStarted:
    pipeline, project = job.pipeline, job.project
    return RunStarted(
        run_id=job.run_id,
        pipeline=pipeline.name,
        pipeline_path=str(pipeline.path.absolute()),
        project=project.id,
        isolation_mode=project.isolation_mode,
        inputs=job.inputs,
        workspace=str(job.folders.user),
        steps=tuple(step.id for step in (*pipeline.steps, *pipeline.always)),
        version=__version__,
        host=socket.gethostname(),
        pid=os.getpid(),
        project_path=str(project.path.absolute()) if project.path else None,
        fallback_allowed=job.fallback_allowed,
        accepted_fallbacks=job.accepted_fallbacks,
        project_identity=identity(project),
        isolation_required=project.isolation_required,
        local=project.local,
        policy=caller.policy is not None,
        stops_at_failure=True,
    )


def _run(job: Job, first: RunStarted | RunResumed, events: Sequence[Event], caller: Caller) -> RunResult:
    """Run from the first step, or from where the events end. The caller holds the run's lock."""
    folders, project, cancel = job.folders, job.project, caller.cancel
    fence_run(folders.record)
    state = state_of(events)
    room = Room(folders.record)
    journal = _journal(job, caller, state, room)
    proxy = Proxy()
    targets = ProjectTargets(
        job.run_id,
        job.pipeline,
        project,
        folders,
        resumes=bool(events),
        accept_new_host_key=caller.accept_new_host_key,
        secrets=job.secrets,
        accept=proxy.accept,
    )
    replay = Replay(events)
    replay.accounts.day = day_account(project, folders.record.parent, job.run_id)
    context = RunContext(
        run_id=job.run_id,
        run_dir=folders.record,
        pipeline=job.pipeline,
        project=project,
        targets=targets,
        workspace=targets.workspace,
        images=targets,
        journal=journal,
        secrets=job.secrets,
        cancel=cancel,
        fallback_allowed=job.fallback_allowed and not project.isolation_required,
        serials=Serials(),
        replay=replay,
        proxy=proxy,
        logs=LogQuota(project.log_quota),
        room=room,
        readable=readable_files(caller.policy, job.pipeline, folders.record),
        prices=load_prices(project.prices) if project.prices else None,
        accepted_fallbacks=frozenset(job.accepted_fallbacks),
        upstreams=caller.upstreams,
    )
    vm = targets.vm if _needs_vm(job.pipeline) else None
    if vm:
        vm.connect_early()
        vm.queue(caller.wait, lambda: cancel.requested, lambda message: _record(journal, RunQueued(message)))
        vm.warn(lambda message: _record(journal, Warned(message)))
    try:
        _run_between(context, folders, first, job.inputs, state, vm)
    except BaseException as error:
        mask_error(error, job.secrets.masker)
        raise
    finally:
        if room.is_missing:
            targets.leave()
        else:
            targets.close()
        journal.close()
        replay.accounts.close()
    return RunResult(folders.record, state)


def _journal(job: Job, caller: Caller, state: RunState, room: Room) -> Journal:
    record = job.folders.record
    listeners: list[Listener] = [StateFile(record, state, room), EventLog(job.run_id)]
    listeners += [caller.on_event] if caller.on_event else []
    journal = Journal(record, listeners, job.secrets.masker.message, room)
    room.on_wait = lambda words: journal.notify(Warned(words))
    return journal


def _run_between(
    context: RunContext,
    folders: Folders,
    first: RunStarted | RunResumed,
    inputs: Mapping[str, Json],
    state: RunState,
    vm: ProjectVm | None,
) -> None:
    """Record `first`, walk through the steps, and record the run's last event."""
    # The import takes as long as the login, which goes on meanwhile.
    from pccpipe.executor.executor import execute

    began_at = context.replay.began_at or time.time()
    context.journal.append(first)
    if not context.replay.is_empty:
        context.workspace.resume()
        if context.replay.cancelled_by and not context.replay.always:
            context.cancel.request(context.replay.cancelled_by)
    ending: RunEnding | None = RunEnded(
        Outcome.FAILED, "failed", message="pccpipe itself failed; the traceback says where"
    )
    try:
        with (
            context.cancel.watched_by(lambda _: context.room.give_up()),
            context.cancel.watched_by(lambda grace: _record_cancel(context, grace)),
            _interrupting(vm, context.cancel),
            requests.obeyed(context.run_dir, lambda by, who: _cancel_or_hurry(context.cancel, by, who)),
        ):
            busy = _claim(context, vm) if vm else None
            ending = busy or execute(context, inputs)
    except VmBusy as busy:
        # A run that began earlier is not over: a later process resumes it.
        ending = None
        if context.replay.due is not None:
            ending = RunWaiting(busy.message, context.replay.due)  # `resume --due` tries it again
        elif context.replay.was_paused:
            hint = f"pccpipe resume {context.run_id}"
            ending = RunStopped(Outcome.UNAVAILABLE, busy.message, hint, Reason.VM_BUSY)
        raise
    finally:
        if context.room.is_missing:
            pass  # no event can be recorded; the process that resumes the run does all of this
        elif isinstance(ending, RunEnded):
            if vm and not context.cancel.requested:
                name_daemons(context, vm, state, time.time() - began_at)
            remove_copies(context, folders)
            seconds = time.time() - began_at
            context.journal.append(replace(ending, downgraded=state.downgraded, seconds=seconds))
        elif ending is not None:
            context.journal.append(ending)


def _interrupting(vm: ProjectVm | None, cancel: Cancel) -> AbstractContextManager[None]:
    """Let a cancel end an attempt to connect, within the block. A run that is cancelled already needs the VM."""
    if vm is None or cancel.requested:
        return nullcontext()
    return cancel.watched_by(lambda _: vm.interrupt())


def _claim(context: RunContext, vm: ProjectVm) -> RunEnded | None:
    """Claim the VM for this run alone; return how the run ends if it cannot have it."""
    try:
        unless_halted(Halt(context.cancel), vm.claim)
    except Halted:
        if not context.replay.is_empty:
            context.absence.since(time.monotonic())
            return None  # first follow its commands to their end
        return RunEnded(Outcome.CANCELLED, Outcome.CANCELLED.value, message="cancelled")
    except Unavailable:
        return None  # each step that asks for the VM reports it, and may have a fallback
    except VmBusy as busy:
        if context.cancel.requested:
            return RunEnded(Outcome.CANCELLED, Outcome.CANCELLED.value, message="cancelled")
        if not context.replay.is_empty:
            raise
        return RunEnded(Outcome.UNAVAILABLE, "vm_busy", message=f"{busy.message}; {busy.hint}")
    return None


def _record(journal: Journal, happening: Happening) -> None:
    journal.append(happening)


def _record_cancel(context: RunContext, grace: float) -> None:
    # The watchers after this one end the commands, even if the cancel cannot be recorded.
    with contextlib.suppress(RecordFull):
        context.journal.append(Cancelling(context.cancel.by, grace, context.cancel.who))


def _cancel_or_hurry(cancel: Cancel, by: str, who: str) -> None:
    if cancel.requested:
        cancel.hurry()
    else:
        cancel.request(by, who)


def _needs_vm(pipeline: Pipeline) -> bool:
    """Say whether a step needs the VM of a project that has one."""
    bodies = [step.body for step in pipeline.all_steps()]
    return any(
        isinstance(body, Upload | Download | Build) or (isinstance(body, Run) and body.where.on is not Place.LOCAL)
        for body in bodies
    )
