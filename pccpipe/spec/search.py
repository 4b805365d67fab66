"""Finds the project file of a command that names none: beside the pipeline, else the nearest one upwards.

The authors of the code in a workspace, also agents, may have written a file there. It counts only if the operator's
current folder is in that workspace, and the operator named no workspace.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from pccpipe.data_files import data_path
from pccpipe.errors import UsageError
from pccpipe.outcome import Place
from pccpipe.spec.model import Pipeline, Run
from pccpipe.spec.project import DEFAULT_FILE

WAY_ON = "write a project file (pccpipe init), name one (--project FILE), or run everything on this machine (--local)"


class ProjectFile(Struct, frozen=True):
    """The project file, or None; and the ignored files, each with the reason."""

    path: Path | None
    passed_over: tuple[str, ...] = ()


def find_project_file(
    current: Path, *, pipeline: Path | None = None, workspace: Path | None = None, workspace_is_named: bool = False
) -> ProjectFile:
    """Search beside the pipeline, then from the current folder upwards.

    Args:
        pipeline: the pipeline's file, as the operator named it. A built-in one has no folder to search.
        workspace: the code to work on; default: the current folder.
    """
    around = os.path.realpath(workspace or current)
    is_at_work_in_it = _is_in(os.path.realpath(current), around) and not workspace_is_named
    trusted = {os.geteuid(), 0, *_owners([current, *([pipeline] if pipeline else [])])}
    passed_over: dict[str, str] = {}
    for file in _candidates(current, pipeline):
        if not os.path.lexists(file):
            continue
        # The folder that contains the file, and the target of a link.
        places = os.path.realpath(file.parent), os.path.realpath(file)
        if not is_at_work_in_it and any(_is_in(place, around) for place in places):
            passed_over[str(file)] = f"ignored {file}: it is in the workspace (to use it: --project {file})"
        elif not set(_owners([file])) <= trusted:
            passed_over[str(file)] = f"ignored {file}: it belongs to another user (to use it: --project {file})"
        else:
            return ProjectFile(file, tuple(passed_over.values()))
    return ProjectFile(None, tuple(passed_over.values()))


def step_that_needs_a_project(pipeline: Pipeline) -> str | None:
    """Return words about a step that asks for a VM or a container; None if there is no such step."""
    for step in pipeline.all_steps():
        if isinstance(step.body, Run) and step.body.where.on is not Place.LOCAL:
            return f"the step {step.id} has `on: {step.body.where.on.value}`"
    return None


def refuse_without_project(pipeline: Pipeline, way_on: str = WAY_ON) -> None:
    """Raise UsageError if a pipeline needs a project file, which says where its steps run."""
    if needs := step_that_needs_a_project(pipeline):
        raise UsageError(f"{needs}, and no project file says where that is", way_on)


def refuse_required(pipeline: Pipeline) -> None:
    """Raise UsageError if a step's `isolation: required` forbids to run the pipeline on this machine."""
    for step in pipeline.all_steps():
        body = step.body
        if isinstance(body, Run) and body.isolation_required and body.where.on is not Place.LOCAL:
            raise UsageError(
                f"--local is not allowed: the step {step.id} has `isolation: required`",
                "leave out --local, and give a project file",
            )


def _candidates(current: Path, pipeline: Path | None) -> Iterator[Path]:
    if pipeline and not _is_in(os.path.realpath(pipeline), os.path.realpath(data_path("pipelines"))):
        yield Path(os.path.realpath(pipeline.parent), DEFAULT_FILE)
    folder = Path(os.path.realpath(current))
    yield from (each / DEFAULT_FILE for each in (folder, *folder.parents))


def _is_in(path: str, folder: str) -> bool:
    return Path(path).is_relative_to(folder)


def _owners(paths: list[Path]) -> Iterator[int]:
    for path in paths:
        try:
            yield path.stat().st_uid
        except OSError:
            continue
