"""The library: what the command does, as calls. Safe to call from many threads at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pccpipe.cancel import Cancel
from pccpipe.data_files import data_path
from pccpipe.errors import UsageError
from pccpipe.layout import RUNS
from pccpipe.outcome import IsolationMode, Outcome
from pccpipe.record import cancel_requests as requests
from pccpipe.record.events import Event, RunEnded
from pccpipe.record.journal import check_run_id, read_events
from pccpipe.record.lock import is_abandoned
from pccpipe.record.state import RunState
from pccpipe.secrets.sources import read_secrets
from pccpipe.secrets.values import Secrets
from pccpipe.session import session
from pccpipe.session.answers import give_answers
from pccpipe.session.begin import (
    accepted_fallbacks,
    check_engine,
    named_secrets,
    project_of,
    refuse_written_secrets,
    workspace_of,
)
from pccpipe.session.job import Caller, Job
from pccpipe.session.result import RunResult as RunResult
from pccpipe.session.targets import Folders
from pccpipe.spec.inputs import resolve_inputs
from pccpipe.spec.load import load_pipeline
from pccpipe.spec.model import Pipeline, Project
from pccpipe.spec.project import load_project as load_project
from pccpipe.spec.project import local_project as local_project
from pccpipe.spec.search import WAY_ON, refuse_required, step_that_needs_a_project
from pccpipe.values import ENDPOINT, Json

if TYPE_CHECKING:
    from pccpipe.checkup.check import CheckResult, DoctorReport, FixResult
    from pccpipe.executor.planned import Plan
    from pccpipe.gc.look import Site
    from pccpipe.gc.report import Collected, GcReport, Removal


class Fallback(Enum):
    """Whether steps may go on with less isolation than they ask for."""

    ALLOWED = "allowed"
    FORBIDDEN = "forbidden"


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
    check_run_id(run_id)
    project = project_of(project, pipeline)
    values = resolve_inputs(pipeline, inputs or {})
    secrets = Secrets(read_secrets(pipeline.secrets, named_secrets(pipeline), environ))
    refuse_written_secrets(pipeline, values, secrets)
    check_engine(pipeline, project)
    accepted = accepted_fallbacks(pipeline, accept_fallback)
    folders = Folders.of(_runs_dir(runs_dir), run_id, workspace_of(workspace))
    job = Job(run_id, pipeline, project, folders, values, secrets, fallback is Fallback.ALLOWED, accepted)
    return session.begin(job, Caller(on_event, cancel or Cancel(), accept_new_host_key, wait))


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
    caller = Caller(on_event, cancel or Cancel(), accept_new_host_key, wait)
    return session.resume(_runs_dir(runs_dir) / run_id, project, accept_fallback, environ, caller)


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
    return give_answers(_runs_dir(runs_dir) / run_id, values, project)


def ask_to_cancel(run_id: str, *, runs_dir: str | Path | None = None) -> bool:
    """Ask the process that runs a run to cancel it; asked again, its grace is cut short. False if there is none.

    Raises UsageError if there is no such run, or it has ended.
    """
    check_run_id(run_id)
    record = _runs_dir(runs_dir) / run_id
    if any(isinstance(event.what, RunEnded) for event in read_events(record)):
        raise UsageError(f"the run {run_id!r} has ended", f"to see it: pccpipe show {run_id}")
    if is_abandoned(record):
        return False
    requests.ask_to_cancel(record, "cancel")
    return True


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
    from pccpipe.executor.plan import make_plan

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
    on_checked: Callable[[CheckResult], object] | None = None,
    on_fixed: Callable[[FixResult], object] | None = None,
) -> DoctorReport:
    """Check the machines that a project's steps run on; with `fix`, repair what is safe to repair.

    Nothing is repaired on a VM that a run has. Faults are in the report; they are no exception.

    Args:
        project: default: this machine is looked at.
        runs_dir: as for `run`; says which of a machine's leftovers are of runs that are over.
        endpoint: the base URL of the model's API.
        key: for it; default: that in OPENAI_API_KEY. Used for one GET from this machine.
        accept_new_host_key: as for `run`.
        on_checked: called with each check once it is done; after a repair, with all of them again.
        on_fixed: called with each repair, also one that failed.

    Raises UsageError if `endpoint` is no address.
    """
    if not endpoint.startswith(("http://", "https://")):
        raise UsageError(f"the endpoint {endpoint!r} is no address", f"for example {ENDPOINT}")
    from pccpipe.checkup.context import CheckupOptions
    from pccpipe.checkup.doctor import examine

    key = os.environ.get("OPENAI_API_KEY", "") if key is None else key
    options = CheckupOptions(
        project or local_project(),
        _runs_dir(runs_dir),
        endpoint.rstrip("/"),
        key,
        accept_new_host_key,
    )
    return examine(options, fix=fix, on_checked=on_checked or (lambda _: None), on_fixed=on_fixed or (lambda _: None))


def gc(
    *,
    project: Project | None = None,
    runs_dir: str | Path | None = None,
    older_than: float = 24 * 3600.0,
    discard: Collection[str] = (),
    dry_run: bool = False,
    accept_new_host_key: bool = False,
    on_removal: Callable[[Site, Removal], object] = lambda _site, _removal: None,
    on_site: Callable[[Collected], object] = lambda _: None,
) -> GcReport:
    """Remove what runs left that no live run needs, on the project's VM, on the engine and on this machine.

    Args:
        project: default: only this machine is cleaned up.
        runs_dir: as for `run`.
        older_than: seconds without a change after which things of an unfinished run are removed.
        discard: ids of runs of which all is removed, also changes that exist nowhere else.
        dry_run: remove nothing.
        accept_new_host_key: as for `run`.
        on_removal: called with each thing once its fate is known, and with its site.
        on_site: called with each site once all of it is done.

    Raises UsageError if a link leads out of `runs_dir`, `Unavailable` if the VM can't be reached.
    """
    from pccpipe.gc.sites import collect_project

    return collect_project(
        project or local_project(),
        _runs_dir(runs_dir),
        older_than=older_than,
        discard=discard,
        dry_run=dry_run,
        accept_new_host_key=accept_new_host_key,
        on_removal=on_removal,
        on_site=on_site,
    )


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
    from pccpipe.checkup.context import CheckupOptions
    from pccpipe.checkup.provision import as_login, inputs_of, make_folder, write_down

    project = project or local_project()
    if project.isolation_mode is not IsolationMode.VM:
        mode = project.isolation_mode.value
        hint = "a project file with `isolation_mode: vm` and a `vm:` names one (--project FILE)"
        raise UsageError(f"the project {project.id!r} has no VM: its isolation_mode is {mode}", hint)
    check_run_id(run_id)
    options = CheckupOptions(project, _runs_dir(runs_dir), ENDPOINT, "", accept_new_host_key)
    make_folder(options)
    result = run(
        load(data_path("pipelines", "provision.yaml")),
        run_id=run_id,
        project=as_login(project),
        inputs=inputs_of(options),
        runs_dir=runs_dir,
        on_event=on_event,
        cancel=cancel,
        accept_new_host_key=accept_new_host_key,
        wait=wait,
    )
    if result.outcome is Outcome.SUCCEEDED:
        write_down(options)
    return result


def _runs_dir(given: str | Path | None) -> Path:
    return Path(given or RUNS).absolute()
