"""Write the script of an agent step: what its agent file needs to know, then the agent file's own script."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import PurePosixPath

from pccpipe.outcome import Place
from pccpipe.spec.agent_task import PROMPT, SCHEMA
from pccpipe.spec.model import Run


def agent_script(body: Run, place: Place, names: Mapping[str, object]) -> str:
    """Return the script of an agent step at a place. Raises ExpressionError."""
    task = body.agent
    assert task is not None
    agent, container = task.agent, body.where.container
    values = {
        "PCC_MODEL": shlex.quote(agent.model.render(names)),
        "PCC_PROMPT": f'"$PCC_IN/{PROMPT}"',
        "PCC_SCHEMA": f'"$PCC_IN/{SCHEMA}"' if has_schema(body) else "",
        "PCC_RESULT": f'"$PCC_OUT"/{shlex.quote(_result_name(body, names))}' if body.result else "",
        # From the environment: it is empty if the transcripts could not be unpacked.
        "PCC_SESSION": '"${PCC_SESSION-}"' if keeps_session(body, place) else "",
        "PCC_KEEPS_SESSION": "1" if keeps_session(body, place) else "",
        "PCC_READ_ONLY": "1" if container and container.settings.read_only_workspace else "",
        # Outside of a container the workspace could start programs on the machine itself.
        "PCC_TRUSTED": "1" if task.trusts_workspace and place is Place.CONTAINER else "",
        # Unexported: the agent's file decides by which variable its agent, and so its commands, get the key.
        "PCC_KEY": '"${pcc_key-}"',
        "PCC_PROXY_URL": '"${PCC_PROXY_URL-}"',
    }
    lines = [f"{name}={value}" for name, value in values.items()]
    # First, as a secret may have the name of one of these variables.
    taken = f'pcc_key="${{{agent.secret}-}}"; unset {agent.secret}' if agent.secret else "unset pcc_key"
    described = agent.description
    # Outside of a container only the agent's own sandbox holds it, whatever place the step asked for.
    script = described.in_container if place is Place.CONTAINER else described.outside
    return "\n".join([taken, *lines, f"unset pcc_key\n{described.before}{script}"])


def keeps_session(body: Run, place: Place) -> bool:
    """Say whether a command's session is kept for the step's next turn, or for a repair of its result."""
    task = body.agent
    if task is None or task.agent.description.session is None or place is not Place.CONTAINER:
        return False
    return bool(task.session or repairs_of(body))


def repairs_of(body: Run) -> int:
    """Return how often a result against its schema goes back to its agent."""
    return body.agent.repair if body.agent and has_schema(body) else 0


def has_schema(body: Run) -> bool:
    """Say whether an agent step's result has a schema."""
    return body.result is not None and body.result.schema_json is not None


def hidden_names(body: Run) -> tuple[str, ...]:
    """Return the names in the workspace that the step's agent must not see in a container."""
    return () if body.agent is None or body.agent.trusts_workspace else body.agent.agent.description.hide


def _result_name(body: Run, names: Mapping[str, object]) -> str:
    assert body.result is not None
    return PurePosixPath(body.result.path.render(names)).name
