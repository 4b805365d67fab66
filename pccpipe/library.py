"""The library: what the command does, as calls. Safe to call from many threads at once."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct
from msgspec.structs import replace

from pccpipe.assembly import Assembly, Folders
from pccpipe.data_files import data_path
from pccpipe.engine.cancel import Cancel
from pccpipe.engine.context import Parts, Serials
from pccpipe.engine.halt import StepHalt
from pccpipe.engine.past import Past
from pccpipe.errors import Halted, PccpipeError, RecordFull, Unavailable, UsageError, VmBusy
from pccpipe.outcome import IsolationMode, Outcome, Place, Reason
from pccpipe.record import requests
from pccpipe.record.events import (
    Cancelling,
    Event,
    Happening,
    InputGiven,
    RunEnded,
    RunQueued,
    RunResumed,
    RunStarted,
    RunStopped,
    RunWaiting,
    Warned,
)
from pccpipe.record.fence import fence_run, refuse_links
from pccpipe.record.files import write_atomically
from pccpipe.record.journal import EVENTS, Journal, check_run_id, make_run_dir, read_events
from pccpipe.record.lock import RunLock, is_abandoned
from pccpipe.record.logs import LogQuota
from pccpipe.record.room import Room, is_full
from pccpipe.record.state import WAITING, RunState
from pccpipe.record.state_file import StateFile
from pccpipe.secrets.mask import Masker, mask_error
from pccpipe.secrets.proxy.proxy import Proxy
from pccpipe.secrets.sources import read_secrets
from pccpipe.spec.inputs import resolve_inputs
from pccpipe.spec.load import load_pipeline
from pccpipe.spec.model import Build, Download, Pipeline, Project, Run, Upload
from pccpipe.spec.project import identity, run_locally
from pccpipe.spec.project import load_project as load_project
from pccpipe.spec.project import local_project as local_project
from pccpipe.spec.search import WAY_ON, refuse_required, refuse_without_project, step_that_needs_a_project
from pccpipe.targets.abandon import unless_halted
from pccpipe.values import ENDPOINT, Discreet, Json
from pccpipe.version import __version__
from pccpipe.workspace.folder import remove_tree, tree_size
from pccpipe.workspace.guard import SHORTEST

if TYPE_CHECKING:
    from pccpipe.engine.executor import RunOutcome
    from pccpipe.engine.plan import Plan
    from pccpipe.project_vm import ProjectVm
    from pccpipe.vm.check import Looked, Mended, Report

RUNS_DIR = Path(".system/runs")
PIPELINE = "pipeline.yaml"
PIPELINE_FILES = "pipeline-files"
"""In a run's folder: the pipeline as it ran, and the files that it names."""


class Fallback(Enum):
    """Whether steps may go on with less isolation than they ask for."""

    ALLOWED = "allowed"
    FORBIDDEN = "forbidden"


class RunResult(Struct, frozen=True):
    """How a run ended. `record` is its folder, `status` the outcome's word, the `fails_as` of the step that ended it,
    or `vm_busy`.

    A run that waits for a person has no outcome yet: its status is `waiting_for_input`, `state.open_questions` says
    what is to be given to `answer`, and `resume` goes on with it. One that was stopped (`state.stopped`) is
    `unavailable`, keeps its workspace, and `resume` goes on with it too.
    """

    run_id: str
    outcome: Outcome | None
    status: str
    message: str
    downgraded: bool
    record: Path
    state: RunState

    @property
    def exit_status(self) -> int:
        """The command's: 0, 1 failed or timed out, 3 unavailable or lost, 5 waits for a person, 130, 143 cancelled."""
        match self.outcome:
            case None:
                return 5
            case Outcome.SUCCEEDED | Outcome.SKIPPED:
                return 0
            case Outcome.FAILED | Outcome.TIMED_OUT:
                return 1
            case Outcome.UNAVAILABLE | Outcome.LOST:
                return 3
            case Outcome.CANCELLED:
                return 143 if self.state.cancelled_by == "TERM" else 130


def load(path: str | Path) -> Pipeline:
    """Read and check a pipeline: a file's, or a built-in one by its name, such as `default-run`.

    Raises SpecError with every problem in it, UsageError if the file can't be read.
    """
    return load_pipeline(Path(path))


def run(
    pipeline: Pipeline,
    *,
    run_id: str,
    project: Project | None = None,
    workspace: str | Path | None = None,
    inputs: Mapping[str, Json] | None = None,
    runs_dir: str | Path | None = None,
    fallback: Fallback = Fallback.ALLOWED,
    accept_fallback: Collection[str] = (),
    on_event: Callable[[Event], None] | None = None,
    cancel: Cancel | None = None,
    accept_new_host_key: bool = False,
    wait: float = 0.0,
    environ: Mapping[str, str] = os.environ,
) -> RunResult:
    """Run a pipeline to its end, whatever that is; a step's failure is a result, not an exception.

    Args:
        pipeline: from `load`.
        run_id: new in `runs_dir`; letters, digits, `.`, `_`, `-`.
        project: where steps lead. Without one, a pipeline may ask for no VM and no container; `local_project()` is one
            whose steps all run on this machine.
        workspace: the code; default: the current folder.
        inputs: by name; text is read as the input's type.
        runs_dir: where records are kept; default: `.system/runs`.
        fallback: whether steps may go on with less isolation than they ask for.
        accept_fallback: ids of steps that may fall back also after an agent's code may have run, or where the VM is not
            trusted. A person's consent; it is kept in the record.
        on_event: called with each event once it is on disk, from the run's threads, one call at a time.
        cancel: the handle to end the run early.
        accept_new_host_key: take the host key of a VM that known_hosts does not know. One that changed is never taken.
        wait: seconds to wait for a VM that is another run's; it is then `unavailable`, with the status `vm_busy`.
        environ: where secrets of the environment are read, and what a secret's command inherits.

    Raises UsageError, before anything is made, if the run can't be begun as asked; RecordFull if the disk of its record
    is full and stays so: the run has not ended then, and `resume` goes on with it.
    """
    project = _given(project, pipeline)
    check_run_id(run_id)
    values = resolve_inputs(pipeline, inputs or {})
    secrets = read_secrets(pipeline.secrets, _named_secrets(pipeline), environ)
    _check_untold(pipeline, values, secrets)
    _check_engine(pipeline, project)
    accepted = _accepted(pipeline, accept_fallback)
    folders = Folders.of(Path(runs_dir or RUNS_DIR).absolute(), run_id, _workspace(workspace))
    allowed = fallback is Fallback.ALLOWED
    refuse_links(folders.user, folders.record, folders.state)
    make_run_dir(folders.record)
    # Of a run whose record is gone, or put there by those who wrote the workspace: no command of this one made it.
    shutil.rmtree(folders.state, ignore_errors=True)
    with _room_to_begin(folders.record), RunLock(folders.record):
        _keep_pipeline(pipeline, folders.record)
        begins = RunStarted(
            run_id=run_id,
            pipeline=pipeline.name,
            pipeline_path=str(pipeline.path.absolute()),
            project=project.id,
            isolation_mode=project.isolation_mode,
            inputs=values,
            workspace=str(folders.user),
            steps=tuple(step.id for step in (*pipeline.steps, *pipeline.always)),
            version=__version__,
            host=socket.gethostname(),
            pid=os.getpid(),
            project_path=str(project.path.absolute()) if project.path else None,
            fallback_allowed=allowed,
            accepted_fallbacks=accepted,
            project_identity=identity(project),
            isolation_required=project.isolation_required,
            local=project.local,
            stops_at_failure=True,
        )
        consent = frozenset(accepted)
        job = _Job(run_id, pipeline, project, folders, values, secrets, allowed, consent, accept_new_host_key, wait)
        return _go(job, begins, [], on_event, cancel or Cancel())


def resume(
    run_id: str,
    *,
    project: Project | None = None,
    runs_dir: str | Path | None = None,
    accept_fallback: Collection[str] = (),
    on_event: Callable[[Event], None] | None = None,
    cancel: Cancel | None = None,
    accept_new_host_key: bool = False,
    wait: float = 0.0,
    environ: Mapping[str, str] = os.environ,
) -> RunResult:
    """Go on with a run whose process is gone: what it did is not done again, what it began is followed to its end.

    A run that was stopped tries again what was unavailable. One that still waits for a person goes on waiting.

    Args:
        run_id: of a run in `runs_dir` that has not ended.
        project: default: the project file that the run began with. Another project is refused.
        runs_dir, accept_fallback, on_event, cancel, accept_new_host_key, wait, environ: as for `run`. Only new events
            are given to `on_event`; what was accepted before stays accepted.

    Raises UsageError if there is no such run, it has ended, or another process runs it; VmBusy if the VM is another
    run's; RecordFull as `run` does.
    """
    check_run_id(run_id)
    record = Path(runs_dir or RUNS_DIR).absolute() / run_id
    refuse_links(Path.cwd(), record)
    events = list(read_events(record))
    with _room_to_begin(record), RunLock(record):
        began = next((event.what for event in events if isinstance(event.what, RunStarted)), None)
        if began is None:
            raise UsageError(f"the run {run_id!r} ended before it had begun: nothing of it can be resumed")
        ended = next((event.what for event in events if isinstance(event.what, RunEnded)), None)
        if ended:
            raise UsageError(f"the run {run_id!r} has ended: {ended.status}", f"to see it: pccpipe show {run_id}")
        state = _state_of(events)
        if state.open_questions and not (cancel and cancel.requested):
            return RunResult(run_id, None, WAITING, state.message, state.downgraded, record, state)
        pipeline = _kept_pipeline(record, began)
        project = _same_project(began, project or _kept_project(began))
        _check_engine(pipeline, project)
        secrets = read_secrets(pipeline.secrets, _named_secrets(pipeline), environ)
        folders = Folders.of(record.parent, run_id, Path(began.workspace))
        refuse_links(folders.user, record, folders.state)
        allowed = began.fallback_allowed
        accepted = _accepted(pipeline, accept_fallback)
        consent = frozenset({*state.accepted_fallbacks, *accepted})
        job = _Job(
            run_id, pipeline, project, folders, began.inputs, secrets, allowed, consent, accept_new_host_key, wait
        )
        resumed = RunResumed(__version__, socket.gethostname(), os.getpid(), accepted)
        return _go(job, resumed, events, on_event, cancel or Cancel())


def answer(
    run_id: str,
    values: Mapping[str, str],
    *,
    project: Project | None = None,
    runs_dir: str | Path | None = None,
) -> RunState:
    """Give the agents of a waiting run what they asked for, some of it or all; the run's state after that.

    Every agent that asked for a key gets it. The values are kept in the record.

    Args:
        project: default: the project file that the run began with, if it is here. Another project is refused.

    Raises UsageError if there is no such run, it asks for nothing, or for no such key.
    """
    check_run_id(run_id)
    record = Path(runs_dir or RUNS_DIR).absolute() / run_id
    refuse_links(Path.cwd(), record)
    events = list(read_events(record))
    with RunLock(record):
        state = _state_of(events)
        began = next((event.what for event in events if isinstance(event.what, RunStarted)), None)
        if began and (project or (began.project_path and Path(began.project_path).exists())):
            _same_project(began, project or _kept_project(began))
        if state.status == WAITING and not state.open_questions:
            raise UsageError(f"all questions of the run {run_id!r} are answered", f"continue: pccpipe resume {run_id}")
        asked = {key for question in state.open_questions for key in question.inputs}
        if not asked or state.ended_at is not None:
            raise UsageError(f"the run {run_id!r} asks for nothing: it is {state.status}")
        for key in values:
            if key not in asked:
                known = ", ".join(sorted(asked))
                raise UsageError(f"the run {run_id!r} does not ask for {key!r}", f"it asks for: {known}")
        journal = Journal(record, [StateFile(record, state)])
        try:
            for question in state.open_questions:
                given = {key: value for key, value in values.items() if key in question.inputs}
                if given:
                    journal.append(InputGiven(question.step, given))
        finally:
            journal.close()
        return state


def ask_to_cancel(run_id: str, *, runs_dir: str | Path | None = None) -> bool:
    """Ask the process that runs a run to cancel it; asked again, its grace is cut short. False if there is none.

    Raises UsageError if there is no such run, or it has ended.
    """
    check_run_id(run_id)
    record = Path(runs_dir or RUNS_DIR).absolute() / run_id
    if any(isinstance(event.what, RunEnded) for event in read_events(record)):
        raise UsageError(f"the run {run_id!r} has ended", f"to see it: pccpipe show {run_id}")
    if is_abandoned(record):
        return False
    requests.ask_to_cancel(record, "cancel")
    return True


class _Job(Discreet, frozen=True):
    """What `run` is asked for, and `resume` knows from the record."""

    hidden: ClassVar[frozenset[str]] = frozenset({"secrets"})

    run_id: str
    pipeline: Pipeline
    project: Project
    folders: Folders
    inputs: Mapping[str, Json]
    secrets: Mapping[str, str]
    fallback_allowed: bool
    accepted_fallbacks: frozenset[str]
    accept_new_host_key: bool
    wait: float


def _state_of(events: Iterable[Event]) -> RunState:
    state = RunState()
    for event in events:
        state.apply(event)
    return state


def _go(
    job: _Job,
    first: RunStarted | RunResumed,
    events: Sequence[Event],
    on_event: Callable[[Event], None] | None,
    cancel: Cancel,
) -> RunResult:
    """Run, or go on where the events end. The caller has the run's lock."""
    folders, project = job.folders, job.project
    fence_run(folders.record)
    masker = Masker(job.secrets.values())
    state = _state_of(events)
    room = Room(folders.record)
    state_file = StateFile(folders.record, state, room)
    journal = Journal(folders.record, [state_file, *([on_event] if on_event else [])], masker.message, room)
    room.on_wait = lambda words: journal.tell(Warned(words))
    proxy = Proxy()
    assembly = Assembly(
        job.run_id,
        job.pipeline,
        project,
        folders,
        resumes=bool(events),
        accept_new_host_key=job.accept_new_host_key,
        masker=masker,
        secrets=tuple(job.secrets.values()),
        accept=proxy.accept,
    )
    parts = Parts(
        run_id=job.run_id,
        run_dir=folders.record,
        pipeline=job.pipeline,
        project=project,
        targets=assembly,
        workspace=assembly.workspace,
        images=assembly,
        journal=journal,
        masker=masker,
        secrets=job.secrets,
        cancel=cancel,
        fallback_allowed=job.fallback_allowed and not project.isolation_required,
        serials=Serials(),
        past=Past(events),
        proxy=proxy,
        logs=LogQuota(project.log_quota),
        room=room,
        accepted=job.accepted_fallbacks,
    )
    vm = assembly.vm if _needs_vm(job.pipeline) else None
    if vm:
        vm.connect_early()
        vm.queue(job.wait, lambda: cancel.requested, lambda message: _tell(journal, RunQueued(message)))
        vm.warn(lambda message: _tell(journal, Warned(message)))
    try:
        ended = _recorded(parts, folders, first, job.inputs, state, vm)
    except BaseException as error:
        mask_error(error, masker)
        raise
    finally:
        if room.is_missing:
            assembly.leave()
        else:
            assembly.close()
        journal.close()
    message = masker.message(ended.message)
    return RunResult(job.run_id, ended.outcome, ended.status, message, state.downgraded, folders.record, state)


@contextlib.contextmanager
def _room_to_begin(record: Path) -> Iterator[None]:
    """Within the block, make RecordFull of a full disk, with what to do about it: a run without an event cannot be
    resumed.
    """
    try:
        yield
    except (OSError, RecordFull) as error:
        if not is_full(error) and not isinstance(error, RecordFull):
            raise
        journal = record / EVENTS
        has_begun = journal.exists() and journal.stat().st_size
        again = "" if has_begun else f"make room there, then: rm -r {shlex.quote(str(record))}, and begin the run again"
        raise RecordFull(record, again) from error


def _check_untold(pipeline: Pipeline, inputs: Mapping[str, Json], secrets: Mapping[str, str]) -> None:
    """Raise UsageError if a secret stands where it would be kept: the record has the pipeline and its inputs whole."""
    places = {"the pipeline": pipeline.text.encode()}
    places |= {f"the pipeline's file {name}": file.read_bytes() for name, file in (pipeline.files or {}).items()}
    places |= {f"the input {name}": str(value).encode() for name, value in inputs.items()}
    for name, value in secrets.items():
        for place, text in places.items():
            if len(value) >= SHORTEST and value.encode() in text:
                raise UsageError(
                    f"the value of the secret {name} stands in {place}, which is kept in the run's record",
                    "take it out: a step that names the secret in its `secrets:` has it as an environment variable",
                )


def _check_engine(pipeline: Pipeline, project: Project) -> None:
    """Raise UsageError if steps need this machine's engine, and the user's settings name one elsewhere.

    That is no engine which is away: no fallback makes up for it, and any other engine here would be the wrong one.
    """
    bodies = [step.body for step in pipeline.all_steps()]
    needs_engine = any(
        isinstance(body, Build)
        or (isinstance(body, Run) and Place.CONTAINER in (body.where.on, body.fallback and body.fallback.on))
        for body in bodies
    )
    if project.isolation_mode is IsolationMode.CONTAINER and needs_engine:
        from pccpipe.shell.local_engine import find_local_engine

        find_local_engine()


def _accepted(pipeline: Pipeline, ids: Collection[str]) -> tuple[str, ...]:
    """The steps that a person lets fall back. Raises UsageError for one that has no fallback."""
    with_fallback = [
        step.id
        for step in pipeline.all_steps()
        if (isinstance(step.body, Run) and step.body.fallback)
        or (isinstance(step.body, Upload) and step.body.fall_back_to_home)
    ]
    for id_ in ids:
        if id_ not in with_fallback:
            known = ", ".join(with_fallback) or "none"
            raise UsageError(f"no step {id_!r} has a fallback to accept", f"steps with a fallback: {known}")
    return tuple(dict.fromkeys(ids))


def _keep_pipeline(pipeline: Pipeline, record: Path) -> None:
    """Copy the pipeline and the files that it names: a resumed run goes on with what it began with."""
    write_atomically(record / PIPELINE, pipeline.text.encode())
    for name, file in (pipeline.files or {}).items():
        write_atomically(record / PIPELINE_FILES / name, file.read_bytes())


def kept_pipeline(record: Path) -> Pipeline | None:
    """The pipeline with which a run goes on, by its record; None if it does not. Raises SpecError, UsageError."""
    happened = [event.what for event in read_events(record) if isinstance(event.what, RunStarted | RunEnded)]
    began = next(iter(happened), None)
    return _kept_pipeline(record, began) if len(happened) == 1 and isinstance(began, RunStarted) else None


def _kept_pipeline(record: Path, began: RunStarted) -> Pipeline:
    copies = record / PIPELINE_FILES
    folder = copies if copies.is_dir() else Path(began.pipeline_path).parent
    return load_pipeline(record / PIPELINE, folder, older=not began.stops_at_failure)


def _kept_project(began: RunStarted) -> Project:
    if began.project_path:
        return load_project(Path(began.project_path))
    if began.isolation_mode is IsolationMode.LOCAL:
        return Project(began.project or "project", IsolationMode.LOCAL, local=began.local)
    raise UsageError(f"the run {began.run_id!r} had no project file", "say which with --project")


def _same_project(began: RunStarted, project: Project) -> Project:
    """The project with which a run goes on. Raises UsageError if it is another one than the run began with."""
    if began.local:
        project = run_locally(project)
    differs = ""
    if project.id != began.project:
        differs = f"its id is {project.id}, not {began.project}"
    elif project.isolation_mode is not began.isolation_mode:
        differs = f"its isolation_mode is {project.isolation_mode.value}, not {began.isolation_mode.value}"
    elif began.project_identity is not None:
        differs = "" if identity(project) == began.project_identity else "its VM, or what runs there, is another"
    elif began.project_path and project.path and not _is_same_file(Path(began.project_path), project.path):
        differs = f"it is {project.path}, not {began.project_path}"
    if differs:
        raise UsageError(
            f"the run {began.run_id!r} does not go on with another project than it began with: {differs}",
            f"give the project file of the beginning with --project; it was {began.project_path or 'none'}",
        )
    # A requirement that has gone from the file since still holds for this run.
    return replace(project, isolation_required=project.isolation_required or began.isolation_required)


def _is_same_file(kept: Path, given: Path) -> bool:
    """Say whether they are the same file; a run may go on on another machine, where the first is not."""
    return not kept.exists() or kept.resolve() == given.resolve()


def _given(project: Project | None, pipeline: Pipeline) -> Project:
    """The project of a run. Raises UsageError if the pipeline needs one and there is none."""
    if project is None:
        refuse_without_project(
            pipeline,
            "give `project=pccpipe.load_project(FILE)`, or `pccpipe.local_project()` to run it on this machine",
        )
        return Project("project", IsolationMode.LOCAL)
    if project.local:
        refuse_required(pipeline)
    return project


def plan(
    pipeline: Pipeline,
    *,
    project: Project | None = None,
    inputs: Mapping[str, Json] | None = None,
    fallback: Fallback = Fallback.ALLOWED,
) -> Plan:
    """Say what `run` with the same arguments would run where; runs and connects to nothing. Raises UsageError.

    A pipeline that `run` refuses without a project has a warning that says so.
    """
    from pccpipe.engine.plan import make_plan

    values = resolve_inputs(pipeline, inputs or {})
    allowed = fallback is Fallback.ALLOWED
    if project and project.local:
        refuse_required(pipeline)
    made = make_plan(pipeline, project or local_project(), values, fallback_allowed=allowed)
    if project is None and (needs := step_that_needs_a_project(pipeline)):
        refused = f"`run` refuses this: {needs}, and there is no project file; {WAY_ON}"
        made = replace(made, warnings=(refused, *made.warnings[1:]))
    return made


def doctor(
    *,
    project: Project | None = None,
    runs_dir: str | Path | None = None,
    endpoint: str = ENDPOINT,
    key: str | None = None,
    fix: bool = False,
    accept_new_host_key: bool = False,
    on_looked: Callable[[Looked], object] | None = None,
    on_mended: Callable[[Mended], object] | None = None,
) -> Report:
    """Whether the machines that a project's steps run on are fit for that; with `fix`, mend what is safe to.

    Nothing is mended on a VM that a run has. What is wrong is in the report, not an exception.

    Args:
        project: default: this machine is looked at.
        runs_dir: as for `run`; says which of a machine's leftovers are of runs that are over.
        endpoint: the base URL of the model's API.
        key: for it; default: that in OPENAI_API_KEY. Used for one GET from this machine.
        accept_new_host_key: as for `run`.
        on_looked: told of each check as it is done; of all of them anew after something was mended.
        on_mended: told of each thing that was mended, or could not be.

    Raises UsageError if `endpoint` is no address.
    """
    if not endpoint.startswith(("http://", "https://")):
        raise UsageError(f"the endpoint {endpoint!r} is no address", f"for example {ENDPOINT}")
    from pccpipe.vm.doctor import examine
    from pccpipe.vm.patient import Chart

    key = os.environ.get("OPENAI_API_KEY", "") if key is None else key
    chart = Chart(
        project or local_project(),
        Path(runs_dir or RUNS_DIR).absolute(),
        endpoint.rstrip("/"),
        key,
        accept_new_host_key,
    )
    return examine(chart, fix=fix, on_looked=on_looked or (lambda _: None), on_mended=on_mended or (lambda _: None))


def provision(
    *,
    run_id: str,
    project: Project | None = None,
    runs_dir: str | Path | None = None,
    on_event: Callable[[Event], None] | None = None,
    cancel: Cancel | None = None,
    accept_new_host_key: bool = False,
    wait: float = 0.0,
) -> RunResult:
    """Make a project's bare VM fit for runs; what is there stays as it is. `doctor` says whether it is fit now.

    It is a run of pipelines/provision.yaml, once the folder for projects is there. Arguments as for `run`.

    Raises UsageError if the project has no VM, `Unavailable` if it can't be reached or the folder not be made.
    """
    from pccpipe.vm.patient import Chart
    from pccpipe.vm.provision import as_login, inputs_of, make_folder, write_down

    project = project or local_project()
    if project.isolation_mode is not IsolationMode.VM:
        mode = project.isolation_mode.value
        hint = "a project file with `isolation_mode: vm` and a `vm:` names one (--project FILE)"
        raise UsageError(f"the project {project.id!r} has no VM: its isolation_mode is {mode}", hint)
    check_run_id(run_id)
    chart = Chart(project, Path(runs_dir or RUNS_DIR).absolute(), ENDPOINT, "", accept_new_host_key)
    make_folder(chart)
    result = run(
        load(data_path("pipelines", "provision.yaml")),
        run_id=run_id,
        project=as_login(project),
        inputs=inputs_of(chart),
        runs_dir=runs_dir,
        on_event=on_event,
        cancel=cancel,
        accept_new_host_key=accept_new_host_key,
        wait=wait,
    )
    if result.outcome is Outcome.SUCCEEDED:
        write_down(chart)
    return result


def _recorded(
    parts: Parts,
    folders: Folders,
    first: RunStarted | RunResumed,
    inputs: Mapping[str, Json],
    state: RunState,
    vm: ProjectVm | None,
) -> RunOutcome:
    """The run, between its first event, or the one that says that it goes on, and its last."""
    # Imported when the connection is on its way: its login takes as long.
    from pccpipe.engine.executor import RunOutcome, execute

    began_at = parts.past.began_at or time.time()
    parts.journal.append(first)
    if not parts.past.is_empty:
        parts.workspace.take_up()
        if parts.past.cancelled_by and not parts.past.always:
            parts.cancel.request(parts.past.cancelled_by)
    ended = RunOutcome(Outcome.FAILED, "failed", "pccpipe itself failed; the traceback says where")
    going_on = False
    try:
        with (
            parts.cancel.watched_by(lambda _: parts.room.give_up()),
            parts.cancel.watched_by(lambda grace: _tell_cancel(parts, grace)),
            _interrupting(vm, parts.cancel),
            requests.obeyed(parts.run_dir, lambda by, who: _obey(parts.cancel, by, who)),
        ):
            busy = _claimed(parts, vm) if vm else None
            ended = busy or execute(parts, inputs)
    except VmBusy as busy:
        # A run that was begun before is not over for that: it is resumed later.
        going_on = True
        if parts.past.was_paused:
            parts.journal.append(
                RunStopped(Outcome.UNAVAILABLE, busy.message, f"pccpipe resume {parts.run_id}", Reason.VM_BUSY)
            )
        raise
    finally:
        if parts.room.is_missing:
            pass  # nothing can be recorded; the process that resumes the run does all of this
        elif ended.outcome is None:
            parts.journal.append(RunWaiting(ended.message))
        elif ended.stopped:
            parts.journal.append(RunStopped(ended.outcome, ended.message, ended.hint, ended.reason))
        elif not going_on:
            if vm and not parts.cancel.requested:
                _name_daemons(parts, vm, state, time.time() - began_at)
            _clear_up(parts, folders)
            parts.journal.append(
                RunEnded(ended.outcome, ended.status, state.downgraded, time.time() - began_at, ended.message)
            )
    return ended


def _interrupting(vm: ProjectVm | None, cancel: Cancel) -> AbstractContextManager[None]:
    """Within the block, let a cancel end an attempt to connect; one that came before needs the VM itself."""
    if vm is None or cancel.requested:
        return nullcontext()
    return cancel.watched_by(lambda _: vm.interrupt())


def _claimed(parts: Parts, vm: ProjectVm) -> RunOutcome | None:
    """Have the VM for this run alone; or how a run ends that can't have it."""
    from pccpipe.engine.executor import RunOutcome

    try:
        unless_halted(StepHalt(parts.cancel, None), vm.claim)
    except Halted:
        if not parts.past.is_empty:
            parts.absence.since(time.monotonic())
            return None  # what it had begun is brought to its end first
        return RunOutcome(Outcome.CANCELLED, Outcome.CANCELLED.value, "cancelled")
    except Unavailable:
        return None  # each step that asks for the VM is told so, and may have a fallback
    except VmBusy as busy:
        if parts.cancel.requested:
            return RunOutcome(Outcome.CANCELLED, Outcome.CANCELLED.value, "cancelled")
        if not parts.past.is_empty:
            raise
        return RunOutcome(Outcome.UNAVAILABLE, "vm_busy", f"{busy.message}; {busy.hint}")
    return None


def _tell(journal: Journal, happening: Happening) -> None:
    journal.append(happening)


def _tell_cancel(parts: Parts, grace: float) -> None:
    # The watchers after this one end what runs, whether or not the cancel can be recorded.
    with contextlib.suppress(RecordFull):
        parts.journal.append(Cancelling(parts.cancel.by, grace, parts.cancel.who))


def _obey(cancel: Cancel, by: str, who: str) -> None:
    if cancel.requested:
        cancel.hurry()
    else:
        cancel.request(by, who)


def _name_daemons(parts: Parts, vm: ProjectVm, state: RunState, seconds: float) -> None:
    """Name what the run's commands left running on the VM and nothing ends: it is the next run's neighbour.

    An account of the commands' own is swept instead. What a command began carries its mark and has ended with it, but
    a daemon may have written over that.
    """
    attempts = (attempt for step in state.steps.values() for attempt in step.attempts)
    if vm.runs_as_account or not any(attempt.had and attempt.had.place is Place.VM for attempt in attempts):
        return
    from pccpipe.gc.unknown import in_words, unknown_processes

    with contextlib.suppress(PccpipeError, OSError):
        machine = vm.connection
        if lines := unknown_processes(machine, vm.root, younger_than=seconds):
            pids = " ".join(line.partition(" ")[0] for line in lines)
            words = f"still running on {machine.host} after the run: {in_words(machine.facts.user, lines)}"
            parts.journal.append(Warned(f"{words}; fix: kill {pids}, on the VM"))


def _clear_up(parts: Parts, folders: Folders) -> None:
    """Remove the copies at home, unless they hold changes that no diff has: an agent's work is never thrown away."""
    if not folders.sent.exists():
        return
    cancel = parts.cancel
    try:
        # After a cancel, only one that comes from now on cuts it short.
        with cancel.shield() if cancel.requested else nullcontext(cancel) as from_now_on:
            is_kept = parts.workspace.has_untold_changes(StepHalt(from_now_on, None))
    except (PccpipeError, OSError):
        is_kept = True  # no diff can be made of it, or nobody waits for it
    if is_kept:
        from pccpipe.views.text import size

        parts.journal.append(
            Warned(
                f"files that this run changed exist only in {folders.copy} ({size(tree_size(folders.copy))}): no diff "
                f"has all of them; once you have what you need: rm -rf {shlex.quote(str(folders.copy))}"
            )
        )
        return
    for folder in (folders.copy, folders.sent):
        if not remove_tree(folder):
            words = f"not removed: {folder}: another user's files are in it"
            parts.journal.append(Warned(f"{words}; fix: sudo rm -rf {shlex.quote(str(folder))}"))


def _named_secrets(pipeline: Pipeline) -> set[str]:
    steps = pipeline.all_steps()
    return {name for step in steps if isinstance(step.body, Run) for name in step.body.secrets}


def _needs_vm(pipeline: Pipeline) -> bool:
    """Whether a step needs the VM of a project that has one."""
    bodies = [step.body for step in pipeline.all_steps()]
    return any(
        isinstance(body, Upload | Download | Build) or (isinstance(body, Run) and body.where.on is not Place.LOCAL)
        for body in bodies
    )


def _workspace(given: str | Path | None) -> Path:
    folder = Path(given or ".").absolute()
    if not folder.is_dir():
        raise UsageError(f"the workspace {folder} is no folder", "name the project's folder with --workspace")
    return folder
