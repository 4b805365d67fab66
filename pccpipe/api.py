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
from pccpipe.model_api import ModelApi
from pccpipe.outcome import IsolationMode, Outcome
from pccpipe.policy.enforce import PipelineCheck, ProjectCheck, hold
from pccpipe.policy.file import load_policy as load_policy
from pccpipe.policy.policy import Policy
from pccpipe.record import cancel_requests as requests
from pccpipe.record.events import Event
from pccpipe.record.journal import check_run_id, read_events
from pccpipe.record.lock import is_abandoned
from pccpipe.record.run_events import RunEnded
from pccpipe.record.state import RunState
from pccpipe.records import runs_folder
from pccpipe.session import session
from pccpipe.session.answers import give_answers
from pccpipe.session.begin import (
    accepted_fallbacks,
    check_engine,
    project_of,
    read_values,
    refuse_written_secrets,
    workspace_of,
)
from pccpipe.session.job import Caller, Job
from pccpipe.session.money import check_prices
from pccpipe.session.result import RunResult as RunResult
from pccpipe.session.targets import Folders
from pccpipe.spec.inputs import resolve_inputs
from pccpipe.spec.load import NO_FOLDER, load_pipeline, load_text
from pccpipe.spec.model import Pipeline
from pccpipe.spec.project import DEFAULT_FILE
from pccpipe.spec.project import load_project as read_project
from pccpipe.spec.project import local_project as local_project
from pccpipe.spec.project_model import Project
from pccpipe.spec.search import WAY_ON, refuse_required, step_that_needs_a_project
from pccpipe.spec.write import yaml_text
from pccpipe.values import Json

if TYPE_CHECKING:
    from pccpipe.checkup.check import CheckResult, DoctorReport, FixResult
    from pccpipe.executor.planned import Plan
    from pccpipe.gc.look import Site
    from pccpipe.gc.report import GcReport, Removal, SiteReport


class Fallback(Enum):
    """Allows or forbids that steps continue with less isolation than they ask for."""

    ALLOWED = "allowed"
    FORBIDDEN = "forbidden"


def load(
    pipeline: str | Path | Mapping[str, Json], *, root: str | Path | None = None, policy: Policy | None = None
) -> Pipeline:
    """Read and check a pipeline.

    Args:
        pipeline: a file's path, the name of a built-in one (`default-run`), its text (with a line break in it), or its
            data.
        root: with text or data, the folder where the files that it names begin; default: it may name none by a
            relative path.
        policy: what it may ask for; default: everything. `run` takes the policy as well, and judges the inputs.

    Raises SpecError with every problem in it, PolicyRefused (which is one) with every refusal, UsageError if the file
    can't be read.
    """
    check = PipelineCheck(policy) if policy else None
    if isinstance(pipeline, Mapping):
        pipeline = yaml_text(dict(pipeline))
    if isinstance(pipeline, str) and "\n" in pipeline:
        return load_text(pipeline, Path(root).absolute() if root is not None else NO_FOLDER, check=check)
    return load_pipeline(Path(pipeline), check=check)


def load_project(path: str | Path = DEFAULT_FILE, *, policy: Policy | None = None) -> Project:
    """Read the project of a file: pccpipe.yaml in the current folder, unless another one is named.

    Args:
        policy: what it may ask for; default: everything.

    Raises SpecError with every problem, PolicyRefused (which is one) with every refusal, UsageError if the file can't
    be read.
    """
    return read_project(path, check=ProjectCheck(policy) if policy else None)


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
    secrets: Mapping[str, str] | None = None,
    upstreams: Mapping[str, str] | None = None,
    policy: Policy | None = None,
) -> RunResult:
    """Run a pipeline to its end. A step's failure is a result, not an exception.

    Args:
        pipeline: from `load`.
        run_id: new in `runs_dir`; letters, digits, `.`, `_`, `-`.
        project: where steps lead. Without one, a pipeline may not ask for a VM or a container; `local_project()` runs
            all steps on this machine.
        workspace: the code; default: the current folder.
        inputs: by name; text is read as the input's type.
        runs_dir: where records are kept; default: `.system/runs`.
        fallback: whether steps may go on with less isolation than they ask for.
        accept_fallback: ids of steps that may fall back even after an agent's code may have run, or from an untrusted
            VM. A person's consent; the record keeps it.
        on_event: called with each event once it is on disk, from the run's threads, one call at a time.
        cancel: the handle that ends the run early.
        accept_new_host_key: accept the host key of a VM that known_hosts lacks. A changed key is never accepted.
        wait: seconds to wait while another run has the VM; then the run is `unavailable`, with the status `vm_busy`.
        environ: the environment to read secrets from, which a secret's command inherits; `{}` for none.
        secrets: values by name, instead of the pipeline's sources.
        upstreams: base URLs of the models' APIs by the names of their secrets, instead of the pipeline's `upstream:`.
            In one, `{step}` becomes the path of the step that calls, and `{attempt}` the number of its attempt.
        policy: the limits of the pipeline and the project, checked again with the inputs; default: none.

    Raises PolicyRefused if the policy refuses something, and UsageError for a wrong argument, both before anything is
    made; RecordFull if the disk of its record stays full: the run has not ended then, and `resume` continues it.
    """
    check_run_id(run_id)
    project = project_of(project, pipeline)
    values = resolve_inputs(pipeline, inputs or {})
    caller = _caller(on_event, cancel, accept_new_host_key, wait, environ, secrets, upstreams, policy)
    pipeline = hold(caller.policy, pipeline, project, values)
    known = read_values(pipeline, caller)
    refuse_written_secrets(pipeline, values, known)
    check_engine(pipeline, project)
    check_prices(pipeline, project, values)
    accepted = accepted_fallbacks(pipeline, accept_fallback)
    folders = Folders.of(runs_folder(runs_dir), run_id, workspace_of(workspace))
    job = Job(run_id, pipeline, project, folders, values, known, fallback is Fallback.ALLOWED, accepted)
    return session.begin(job, caller)


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
    secrets: Mapping[str, str] | None = None,
    upstreams: Mapping[str, str] | None = None,
    policy: Policy | None = None,
) -> RunResult:
    """Resume a run whose process is gone: finished steps do not run again, and its commands are followed to their end.

    A stopped run retries what was unavailable. A run that waits for a person continues to wait.

    Args:
        run_id: of a run in `runs_dir` that has not ended.
        project: default: the project file that the run began with. Another project is refused.
        runs_dir, accept_fallback, on_event, cancel, accept_new_host_key, wait, environ, secrets, upstreams: as for
            `run`. `on_event` gets only new events; what was accepted before stays accepted.
        policy: as for `run`. It is applied to the record: a manipulated one gets no more than it allows.

    Raises UsageError if there is no such run, it has ended, or another process runs it; VmBusy if another run has the
    VM; RecordFull as `run` does.
    """
    check_run_id(run_id)
    caller = _caller(on_event, cancel, accept_new_host_key, wait, environ, secrets, upstreams, policy)
    return session.resume(runs_folder(runs_dir) / run_id, project, accept_fallback, caller)


def answer(
    run_id: str,
    values: Mapping[str, str],
    *,
    project: Project | None = None,
    runs_dir: str | Path | None = None,
) -> RunState:
    """Answer questions of a waiting run's agents, some or all; return the run's state after that.

    Every agent that asked for a key gets its value. The record keeps the values.

    Args:
        project: default: the project file that the run began with, if it is here. Another project is refused.

    Raises UsageError if there is no such run, or it did not ask for a key.
    """
    check_run_id(run_id)
    return give_answers(runs_folder(runs_dir) / run_id, values, project)


def ask_to_cancel(run_id: str, *, runs_dir: str | Path | None = None) -> bool:
    """Ask a run's process to cancel it; a second call shortens the grace. Return False if there is no process.

    Raises UsageError if there is no such run, or it has ended.
    """
    check_run_id(run_id)
    record = runs_folder(runs_dir) / run_id
    if any(isinstance(event.what, RunEnded) for event in read_events(record)):
        raise UsageError(f"run {run_id} has ended", f"to see it: pccpipe show {run_id}")
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
    policy: Policy | None = None,
) -> Plan:
    """Say what `run` with these arguments would run, and where; run and connect to nothing. Raises UsageError.

    A pipeline that `run` refuses without a project has a warning that says so.
    """
    from pccpipe.executor.plan import make_plan

    values = resolve_inputs(pipeline, inputs or {})
    allowed = fallback is Fallback.ALLOWED
    if project and project.local:
        refuse_required(pipeline)
    pipeline = hold(policy, pipeline, project or local_project(), values)
    made = make_plan(pipeline, project or local_project(), values, fallback_allowed=allowed)
    if project is None and (needs := step_that_needs_a_project(pipeline)):
        refused = f"`run` refuses this: {needs}, and there is no project file; {WAY_ON}"
        made = replace(made, warnings=(refused, *made.warnings[1:]))
    return made


def doctor(
    *,
    project: Project | None = None,
    runs_dir: str | Path | None = None,
    endpoint: str = ModelApi.OPENAI.base,
    key: str | None = None,
    fix: bool = False,
    accept_new_host_key: bool = False,
    pipeline: Pipeline | None = None,
    on_checked: Callable[[CheckResult], object] | None = None,
    on_fixed: Callable[[FixResult], object] | None = None,
) -> DoctorReport:
    """Check the machines that a project's steps run on; with `fix`, repair what is safe to repair.

    Nothing is repaired on a VM that a run has. Faults are in the report, not exceptions.

    Args:
        project: default: only this machine is checked.
        runs_dir: as for `run`; tells the leftovers of ended runs from others.
        endpoint: the base URL of the model's API.
        key: its key; default: OPENAI_API_KEY. Used for one GET from this machine.
        accept_new_host_key: as for `run`.
        pipeline: its agents are looked for in the images of its steps.
        on_checked: called with each finished check; after a repair, with all of them again.
        on_fixed: called with each repair, also a failed one.

    Raises UsageError if `endpoint` is not an address.
    """
    if not endpoint.startswith(("http://", "https://")):
        raise UsageError(f"invalid endpoint {endpoint!r}", f"write an address such as {ModelApi.OPENAI.base}")
    from pccpipe.checkup.context import CheckupOptions
    from pccpipe.checkup.doctor import examine

    key = os.environ.get("OPENAI_API_KEY", "") if key is None else key
    runs = runs_folder(runs_dir)
    options = CheckupOptions(project or local_project(), runs, endpoint.rstrip("/"), key, accept_new_host_key, pipeline)
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
    on_site: Callable[[SiteReport], object] = lambda _: None,
) -> GcReport:
    """Remove what runs left that no live run needs, on the project's VM, on the engine and on this machine.

    Args:
        project: default: only this machine is cleaned up.
        runs_dir: as for `run`.
        older_than: seconds without a change after which things of an unfinished run are removed.
        discard: ids of runs to remove completely, with changes that exist nowhere else.
        dry_run: remove nothing.
        accept_new_host_key: as for `run`.
        on_removal: called with each thing that is removed or kept, and its site.
        on_site: called with each finished site.

    Raises UsageError if a link leads out of `runs_dir`, `Unavailable` if the VM is unavailable.
    """
    from pccpipe.gc.sites import collect_project

    return collect_project(
        project or local_project(),
        runs_folder(runs_dir),
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
    """Prepare a project's bare VM for runs, and keep all that is there. `doctor` checks the result.

    Makes the folder for projects, then runs pipelines/provision.yaml. Arguments as for `run`.

    Raises UsageError if the project has no VM, `Unavailable` if the VM is unavailable or the folder cannot be made.
    """
    from pccpipe.checkup.context import CheckupOptions
    from pccpipe.checkup.provision import as_login, inputs_of, make_folder, write_down

    project = project or local_project()
    if project.isolation_mode is not IsolationMode.VM:
        mode = project.isolation_mode.value
        hint = "a project file with `isolation_mode: vm` and a `vm:` names one (--project FILE)"
        raise UsageError(f"the project {project.id!r} has no VM: its isolation_mode is {mode}", hint)
    check_run_id(run_id)
    options = CheckupOptions(project, runs_folder(runs_dir), ModelApi.OPENAI.base, "", accept_new_host_key)
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


def _caller(
    on_event: Callable[[Event], None] | None,
    cancel: Cancel | None,
    accept_new_host_key: bool,
    wait: float,
    environ: Mapping[str, str],
    secrets: Mapping[str, str] | None,
    upstreams: Mapping[str, str] | None,
    policy: Policy | None,
) -> Caller:
    return Caller(
        on_event,
        cancel or Cancel(),
        accept_new_host_key,
        wait,
        environ,
        secrets or {},
        upstreams or {},
        policy,
    )
