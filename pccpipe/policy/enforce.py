"""Holds runs to a policy: at load, and again before the first step, when the inputs and the project are known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from pccpipe.errors import PolicyRefused
from pccpipe.outcome import IsolationMode, Place
from pccpipe.policy.ceilings import with_ceilings
from pccpipe.policy.folders import AllowedFolders, refusal
from pccpipe.policy.policy import Origin, Policy
from pccpipe.policy.refusals import pipeline_refusals, project_refusals
from pccpipe.spec.model import Pipeline, Run
from pccpipe.spec.position import Position
from pccpipe.spec.problem import Problem, Rule
from pccpipe.spec.project_model import Project
from pccpipe.spec.secret import SecretSource
from pccpipe.spec.source import Source, parse_source
from pccpipe.values import Json


class PipelineCheck:
    """A policy as the loader of pipelines sees it."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def refusals(self, source: Source, folder: Path) -> list[Problem]:
        """Return everything that the policy refuses of a pipeline."""
        return pipeline_refusals(source, folder, self._policy)

    def include_refusal(self, file: Path, folder: Path) -> str:
        """Say why a pipeline in `folder` may not include a file; "" if it may."""
        if AllowedFolders(self._policy.folders, folder).has(file):
            return ""
        return refusal(file)


class ProjectCheck:
    """A policy as the loader of project files sees it."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def refusals(self, source: Source, folder: Path) -> list[Problem]:
        """Return everything that the policy refuses of a project file."""
        return project_refusals(source, folder, self._policy)


def hold(policy: Policy | None, pipeline: Pipeline, project: Project, inputs: Mapping[str, Json]) -> Pipeline:
    """Return the pipeline as it may run: with the policy's ceilings, and its sources of secrets.

    Judges the text that the record keeps, so it holds for a pipeline from `load`, and for one from a record alike.

    Raises PolicyRefused with every refusal.
    """
    if policy is None:
        return pipeline
    source = parse_source(pipeline.text.encode(), str(pipeline.path))
    problems = pipeline_refusals(source, pipeline.path.parent, policy, inputs)
    problems += _of_places(policy, pipeline, project)
    allowed = AllowedFolders(policy.folders, pipeline.path.parent)
    for file in (pipeline.files or {}).values():
        if not allowed.has(file):
            problems.append(Problem(Position(str(pipeline.path), 1, 1), refusal(file), rule=Rule.POLICY))
    if problems:
        raise PolicyRefused(sorted(problems, key=lambda problem: problem.position))
    return with_ceilings(_with_sources(pipeline, policy), policy.ceilings)


def readable_files(policy: Policy | None, pipeline: Pipeline, run_dir: Path) -> AllowedFolders:
    """Return the files that the steps of a run may name, its own included."""
    return AllowedFolders(policy.folders if policy else None, pipeline.path.parent, run_dir)


def _with_sources(pipeline: Pipeline, policy: Policy) -> Pipeline:
    """Return the pipeline with the secrets marked that only the caller may give."""
    rules = policy.secrets or {}
    secrets = {
        name: replace(secret, source=SecretSource.CALLER, source_name="")
        if name in rules and rules[name].origin is Origin.CALLER
        else secret
        for name, secret in pipeline.secrets.items()
    }
    return replace(pipeline, secrets=secrets)


def _of_places(policy: Policy, pipeline: Pipeline, project: Project) -> list[Problem]:
    """Judge where the project leads the steps: its file does not know the pipeline, nor the pipeline the file."""
    if policy.places is None:
        return []
    problems = []
    for step in pipeline.all_steps():
        if isinstance(step.body, Run):
            asked = step.body.where.on
            needed = _places_of(asked, project.isolation_mode)
            if needed != {asked} and not needed <= policy.places:
                allowed = ", ".join(sorted(policy.places)) or "none"
                words = f"isolation_mode {project.isolation_mode.value} of the project {project.id}"
                refused = f"the policy refuses `on: {asked}` of the step {step.id} on the controller"
                message = f"{refused}: {words} leads it there; allowed: {allowed}"
                problems.append(Problem(step.position, message, rule=Rule.POLICY))
    return problems


def _places_of(asked: Place, mode: IsolationMode) -> set[Place]:
    """Return what a step's place is in a project: with the engine on the controller, a container is there too."""
    match mode:
        case IsolationMode.VM:
            return {asked}
        case IsolationMode.CONTAINER:
            return {Place.LOCAL, Place.CONTAINER} if asked is Place.CONTAINER else {Place.LOCAL}
        case IsolationMode.LOCAL:
            return {Place.LOCAL}
