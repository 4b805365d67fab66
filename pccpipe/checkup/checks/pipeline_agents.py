"""Checks that the images of a pipeline's agent steps have the programs of their agents."""

from __future__ import annotations

from msgspec import Struct

from pccpipe.agents.description import AgentDescription
from pccpipe.checkup.check import Check, Finding, ok, wrong
from pccpipe.checkup.checks.agent import PROBE_LIMIT, answers_of, opened_target
from pccpipe.checkup.context import CheckContext
from pccpipe.errors import Unavailable
from pccpipe.spec.model import Pipeline, Run
from pccpipe.target import Command, ContainerSettings

_MISSING = 9


class AgentInImage(Struct, frozen=True):
    """An agent, and an image in which a step runs it."""

    agent: AgentDescription
    image: str


def agents_of(pipeline: Pipeline) -> tuple[AgentInImage, ...]:
    """Return each agent with each image that a step runs it in; an image with an expression is left out."""
    found: dict[tuple[str, str], AgentInImage] = {}
    for step in pipeline.all_steps():
        if isinstance(step.body, Run) and step.body.agent:
            for box in step.body.where.containers:
                for agent in step.body.agent.agents if box.image.is_plain else ():
                    found[agent.name, box.image.source] = AgentInImage(agent.description, box.image.source)
    return tuple(found.values())


def agents(context: CheckContext) -> Finding:
    """Check that each agent of the pipeline has its program in the images of its steps."""
    assert context.options.pipeline is not None
    asked = agents_of(context.options.pipeline)
    has: list[str] = []
    lacks: list[str] = []
    with opened_target(context) as target:
        for number, each in enumerate(asked, 1):
            settings = ContainerSettings(each.image, network="none", pids=1000)
            program, shown = each.agent.program, each.agent.version_command or "true"
            script = f"command -v {program} >/dev/null || exit {_MISSING}\n{shown}"
            command = Command(f"agent-{number}", "agent", number, script, limit=PROBE_LIMIT, container=settings)
            try:
                known = answers_of(target.start(command))
            except Unavailable as error:
                lacks.append(f"{each.image}: {error.words}")
                continue
            if known["code"] == "0":
                has.append(f"{each.agent.name} ({known['said'] or program}) in {each.image}")
            else:
                why = "has no program" if known["code"] == str(_MISSING) else "cannot start"
                lacks.append(f"{each.image} {why} `{program}` for the agent {each.agent.name}")
    return wrong("; ".join(lacks), context.provision_fix) if lacks else ok("; ".join(has))


AGENTS = Check("agents", agents, ("container",), limit=300)
