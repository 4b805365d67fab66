"""The work that a step gives to an agent, and the files that commands find in `PCC_IN`."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from pccpipe.agents.description import AgentDescription
from pccpipe.spec.expression import Template
from pccpipe.spec.position import Position

PROMPT = "prompt.md"
"""The name of an agent's prompt among the files of its command."""
SCHEMA = "result.schema.json"
"""The name of the schema of its result among them."""


class FileInputKind(StrEnum):
    TEXT = "text"
    """Text, a template."""
    TEMPLATE = "template"
    """A file beside the pipeline, a template."""
    FILE = "file"
    """A file, unchanged."""
    SCHEMA = "schema"
    """A result's JSON Schema, by the name or path of `result: schema:`."""
    PATCH = "patch"
    """A patch that `diff:` made, after the list of its files; cut if it is long."""


class FileInput(Struct, frozen=True):
    """A file that a command finds in `PCC_IN`."""

    name: str
    kind: FileInputKind
    content: Template
    """The text to render (TEXT, TEMPLATE; without shell quoting), or the path or name (FILE, SCHEMA, PATCH)."""


class Agent(Struct, frozen=True):
    """An agent that steps can name."""

    name: str
    description: AgentDescription
    model: Template
    position: Position
    secret: str | None = None


class AgentTask(Struct, frozen=True):
    """The work of an agent in a step."""

    agents: tuple[Agent, ...]
    """In their order: the next one takes over."""
    agent: Agent
    """The one of them that the step is about to run."""
    prompt: FileInput
    secrets: tuple[str, ...] = ()
    """The step's own secrets, without those of its agents."""
    session: str | None = None
    repair: int = 1
    """How often an invalid result goes back to the agent."""
    trusts_workspace: bool = False
    """True if files of the workspace may configure the agent."""
    stalled_after: float = 600.0
    ends_stalled: bool = False


def with_secret(secrets: tuple[str, ...], secret: str | None) -> tuple[str, ...]:
    """Add an agent's secret to those of its step."""
    return secrets if secret is None or secret in secrets else (*secrets, secret)
