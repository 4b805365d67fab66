"""The part of a record for the process that resumes the run: the pipeline, its files, and the project's identity."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from pccpipe.errors import UsageError
from pccpipe.layout import PIPELINE, PIPELINE_FILES
from pccpipe.outcome import IsolationMode
from pccpipe.policy.enforce import PipelineCheck, ProjectCheck
from pccpipe.policy.policy import Policy
from pccpipe.record.files import write_atomically
from pccpipe.record.journal import read_events
from pccpipe.record.run_events import RunEnded, RunStarted
from pccpipe.spec.load import load_pipeline
from pccpipe.spec.model import Pipeline
from pccpipe.spec.project import identity, load_project, run_locally
from pccpipe.spec.project_model import Project


def keep_pipeline(pipeline: Pipeline, record: Path) -> None:
    """Copy the pipeline and the files that it names: a resumed run continues with those."""
    write_atomically(record / PIPELINE, pipeline.text.encode())
    for name, file in (pipeline.files or {}).items():
        write_atomically(record / PIPELINE_FILES / name, file.read_bytes())


def pipeline_to_resume(record: Path, policy: Policy | None = None) -> Pipeline | None:
    """Return the pipeline that a run would resume with; None if it has ended. Raises SpecError, UsageError."""
    happened = [event.what for event in read_events(record) if isinstance(event.what, RunStarted | RunEnded)]
    began = next(iter(happened), None)
    return kept_pipeline(record, began, policy) if len(happened) == 1 and isinstance(began, RunStarted) else None


def kept_pipeline(record: Path, began: RunStarted, policy: Policy | None = None) -> Pipeline:
    """Return the pipeline that the run began with. Raises SpecError, UsageError."""
    if (record / PIPELINE).is_symlink():
        raise UsageError(f"run {began.run_id}: its pipeline {record / PIPELINE} is a link, which no run makes")
    copies = record / PIPELINE_FILES
    # The record says where the pipeline was: under a policy, that opens no folder.
    is_here = copies.is_dir() or (policy is not None and policy.folders is not None)
    folder = copies if is_here else Path(began.pipeline_path).parent
    check = PipelineCheck(policy) if policy else None
    return load_pipeline(record / PIPELINE, folder, older=not began.stops_at_failure, check=check)


def kept_project(began: RunStarted, policy: Policy | None = None) -> Project:
    """Return the project of a run, from the file that it began with. Raises UsageError, SpecError."""
    if began.project_path:
        return load_project(Path(began.project_path), check=ProjectCheck(policy) if policy else None)
    if began.isolation_mode is IsolationMode.LOCAL:
        return Project(began.project or "project", IsolationMode.LOCAL, local=began.local)
    raise UsageError(f"run {began.run_id} began without a project file", "name one with --project")


def same_project(began: RunStarted, project: Project) -> Project:
    """Return the project to resume a run with. Raises UsageError if it is not the one that the run began with."""
    if began.local:
        project = run_locally(project)
    differs = ""
    if project.id != began.project:
        differs = f"its id is {project.id}, not {began.project}"
    elif project.isolation_mode is not began.isolation_mode:
        differs = f"its isolation_mode is {project.isolation_mode.value}, not {began.isolation_mode.value}"
    elif began.project_identity is not None:
        differs = "" if identity(project) == began.project_identity else "its `vm:` differs"
    elif began.project_path and project.path and not _is_same_file(Path(began.project_path), project.path):
        differs = f"it is {project.path}, not {began.project_path}"
    if differs:
        raise UsageError(
            f"cannot resume run {began.run_id} with another project: {differs}",
            f"name the project file that it began with (--project); it was {began.project_path or 'none'}",
        )
    # A requirement that was removed from the file still holds for this run.
    return replace(project, isolation_required=project.isolation_required or began.isolation_required)


def _is_same_file(kept: Path, given: Path) -> bool:
    """Say whether they are the same file; the first may be missing on the machine that resumes the run."""
    return not kept.exists() or kept.resolve() == given.resolve()
