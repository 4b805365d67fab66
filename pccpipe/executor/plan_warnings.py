"""Warn in a plan of agents, and of code that they may have written, where no container confines them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pccpipe.executor.places import refusal
from pccpipe.executor.planned import PlannedStep, Way
from pccpipe.outcome import IsolationMode, Place
from pccpipe.spec.model import Run
from pccpipe.spec.project_model import Project

_AGENT = re.compile(r"\b(pcc-)?codex\b")
_NO_SANDBOX = ("--dangerously-bypass-approvals-and-sandbox", "danger-full-access")
_AGENTS_RESULTS = ("builder-result", "reviewer-result")


def exposures(project: Project, steps: Sequence[PlannedStep]) -> Iterator[str]:
    """Yield a sentence for each step that runs an agent, or code that one may have written, in no container."""
    steps = [step for step in steps if step.condition != "false"]
    groups = [f"{step.path}." for step in steps if step.kind in {"repeat", "parallel"}]
    writers = [step for step in steps if step.ways and _may_write(step)]
    for index, step in enumerate(steps):
        body = step.step.body
        if not isinstance(body, Run) or not step.ways:
            continue
        name = _without_legs(step.path)
        if refused := refusal(project.isolation_mode, body):
            yield f"{name} will be `unavailable`: {refused}"
            continue
        if body.isolation_required and step.unattested:
            yield f"{name} will be `unavailable`: `isolation: required`, and a command on the VM could forge its result"
        outside = [way for way in step.ways if way.place is not Place.CONTAINER]
        yield from (_unheld(name, way) for way in outside if any(flag in way.command for flag in _NO_SANDBOX))
        # The plan shows a container's fallback beside its step.
        if step.ways[0].place is Place.CONTAINER:
            continue
        where = " or ".join(dict.fromkeys(_where(way) for way in outside))
        at_hand = _engine_at_hand(step.ways[0], steps)
        if _is_agent(step):
            yield f"{name} is an agent that runs {where}, in no container{at_hand}"
            continue
        before = [
            writer
            for writer in writers
            if writer is not step
            and (
                steps.index(writer) < index
                or any(step.path.startswith(group) and writer.path.startswith(group) for group in groups)
            )
        ]
        if before:
            who = ", ".join(dict.fromkeys(_without_legs(writer.path) for writer in before))
            yield f"{name} runs {where}, in no container, code that {who} may have written{at_hand}"


def kept_apart(project: Project, steps: Sequence[PlannedStep]) -> Iterator[str]:
    """Yield a sentence for each container step that would fail because of a background command on the VM."""
    if project.vm is None or not project.vm.run_as or project.isolation_mode is not IsolationMode.VM:
        return
    for index, step in enumerate(steps):
        body = step.step.body
        if not (isinstance(body, Run) and body.background and step.ways and step.ways[0].place is Place.VM):
            continue
        group = step.path.removesuffix(step.step.id)
        for later in steps[index + 1 :]:
            is_beside = later.path.startswith(group) and later.always == step.always
            if is_beside and later.ways and later.ways[0].place is Place.CONTAINER:
                yield f"{_without_legs(later.path)} will fail: with `run_as`, no container runs beside {step.path}"


def _may_write(step: PlannedStep) -> bool:
    """Say whether a step may write code into the workspace that no person has reviewed."""
    body = step.step.body
    assert isinstance(body, Run)
    container = body.where.container
    contained = step.asked is Place.CONTAINER and not (container and container.settings.read_only_workspace)
    return contained or (_is_agent(step) and step.ways[0].place is not Place.CONTAINER)


def _is_agent(step: PlannedStep) -> bool:
    body = step.step.body
    assert isinstance(body, Run)
    judged = body.result is not None and body.result.schema in _AGENTS_RESULTS
    return judged or any(_AGENT.search(way.command) for way in step.ways)


def _engine_at_hand(way: Way, steps: Sequence[PlannedStep]) -> str:
    """Say that a step runs as the user who creates the run's containers there, so that it may use the engine."""
    makes_containers = any(
        other.place is Place.CONTAINER and other.host == way.host for step in steps for other in step.ways
    )
    if not makes_containers:
        return ""
    who = "you" if way.host == "localhost" else way.host.partition("@")[0]
    return f", where {who} may use Docker (so: as root)"


def _unheld(name: str, way: Way) -> str:
    return f"{name} switches off the agent's own sandbox {_where(way)}, in no container: nothing confines the agent"


def _where(way: Way) -> str:
    return "on this machine" if way.place is Place.LOCAL else f"on the VM {way.host}"


def _without_legs(path: str) -> str:
    return re.sub(r"\[[^\]]*\]", "", path)
