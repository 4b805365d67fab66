"""The checks before a run begins: it makes nothing and runs nothing until they all pass."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from pccpipe.errors import RecordFull, UsageError
from pccpipe.layout import EVENTS
from pccpipe.outcome import IsolationMode, Place
from pccpipe.record.room import is_full
from pccpipe.secrets.sources import read_secrets
from pccpipe.secrets.values import Secrets
from pccpipe.session.job import Caller
from pccpipe.spec.model import Build, Pipeline, Run, Upload
from pccpipe.spec.project_model import Project
from pccpipe.spec.search import refuse_required, refuse_without_project
from pccpipe.values import Json


@contextlib.contextmanager
def room_to_begin(record: Path) -> Iterator[None]:
    """Turn the error of a full disk into RecordFull with its fix, within the block.

    A run without an event cannot be resumed.
    """
    try:
        yield
    except (OSError, RecordFull) as error:
        if not is_full(error) and not isinstance(error, RecordFull):
            raise
        journal = record / EVENTS
        has_begun = journal.exists() and journal.stat().st_size
        again = "" if has_begun else f"free some space, then: rm -r {shlex.quote(str(record))}, and run it again"
        raise RecordFull(record, again) from error


def refuse_written_secrets(pipeline: Pipeline, inputs: Mapping[str, Json], secrets: Secrets) -> None:
    """Raise UsageError if the pipeline or an input has the value of a secret: the run record stores both."""
    places = {"the pipeline": pipeline.text.encode()}
    places |= {f"the pipeline's file {name}": file.read_bytes() for name, file in (pipeline.files or {}).items()}
    places |= {f"the input {name}": str(value).encode() for name, value in inputs.items()}
    for place, text in places.items():
        if name := secrets.found_in(text):
            raise UsageError(
                f"the value of secret {name} appears in {place}, which the run record would store",
                "remove it there; a step that names the secret in its `secrets:` gets it as an environment variable",
            )


def check_engine(pipeline: Pipeline, project: Project) -> None:
    """Raise UsageError if steps need this machine's engine, and the user's settings name one elsewhere.

    No fallback helps: that engine is not unavailable, and any other engine here would be the wrong one.
    """
    bodies = [step.body for step in pipeline.all_steps()]
    needs_engine = any(
        isinstance(body, Build)
        or (isinstance(body, Run) and Place.CONTAINER in (body.where.on, body.fallback and body.fallback.on))
        for body in bodies
    )
    if project.isolation_mode is IsolationMode.CONTAINER and needs_engine:
        from pccpipe.machine.local_engine import find_local_engine

        find_local_engine()


def accepted_fallbacks(pipeline: Pipeline, ids: Collection[str]) -> tuple[str, ...]:
    """Return the steps that a person allows to fall back. Raises UsageError for one that has no fallback."""
    with_fallback = [
        step.id
        for step in pipeline.all_steps()
        if (isinstance(step.body, Run) and step.body.fallback)
        or (isinstance(step.body, Upload) and step.body.fall_back_locally)
    ]
    for id_ in ids:
        if id_ not in with_fallback:
            known = ", ".join(with_fallback) or "none"
            raise UsageError(f"step {id_!r} has no fallback to accept", f"steps with a fallback: {known}")
    return tuple(dict.fromkeys(ids))


def project_of(project: Project | None, pipeline: Pipeline) -> Project:
    """Return the project of a run. Raises UsageError if the pipeline needs one and there is none."""
    if project is None:
        refuse_without_project(
            pipeline,
            "give `project=pccpipe.load_project(FILE)`, or `pccpipe.local_project()` to run it on this machine",
        )
        return Project("project", IsolationMode.LOCAL)
    if project.local:
        refuse_required(pipeline)
    return project


def read_values(pipeline: Pipeline, caller: Caller) -> Secrets:
    """Read the secrets that its steps use. Raises UsageError."""
    return Secrets(read_secrets(pipeline.secrets, named_secrets(pipeline), caller.environ, caller.secrets))


def named_secrets(pipeline: Pipeline) -> set[str]:
    """Return the names of the secrets that its steps use."""
    steps = pipeline.all_steps()
    return {name for step in steps if isinstance(step.body, Run) for name in step.body.all_secrets}


def workspace_of(given: str | Path | None) -> Path:
    """Return the folder with the code, by default the current one. Raises UsageError if it is not a folder."""
    folder = Path(given or ".").absolute()
    if not folder.is_dir():
        raise UsageError(f"the workspace {folder} is not a folder", "name the project's folder with --workspace")
    return folder
