"""Make a `Command` of a step: evaluate every expression, render every file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pccpipe.errors import LimitExceeded, ResultError, UsageError
from pccpipe.executor.agent import agent_script, hidden_names
from pccpipe.executor.attestation import receiver_of
from pccpipe.executor.context import STEP_LIMIT, RunContext, WalkPosition
from pccpipe.executor.exports import wants_exports
from pccpipe.executor.result import result_target
from pccpipe.executor.secrets import StepSecrets
from pccpipe.limits import FILE_INPUT
from pccpipe.outcome import Place
from pccpipe.record.step_path import file_name
from pccpipe.search_path import AGENT_PATH, reaches_workspace
from pccpipe.spec.agent_task import PROMPT, SCHEMA, FileInput, FileInputKind
from pccpipe.spec.env import layered
from pccpipe.spec.model import Host, Run, Step
from pccpipe.spec.paths import read_limited
from pccpipe.spec.schema import find_schema
from pccpipe.target import Command, ContainerSettings
from pccpipe.workspace.patch import brief

STOP_MARGIN = 60.0
"""Seconds to stop a command; a target's own limit is this and `lost_after` later than the step's."""

SAFE_GIT = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
"""The variables with which git uses a repository of another user, as root of a container must."""


def make_command(
    context: RunContext,
    position: WalkPosition,
    step: Step,
    body: Run,
    where: Host,
    place: Place,
    serial: int,
    secrets: StepSecrets | None,
) -> Command:
    """Make the command that runs `body` at `place` as `where` says. Raises ExpressionError, UsageError.

    Args:
        serial: the number of the command among those of its step, from 1.
    """
    names = position.scope.on(place.value).names
    container = where.container if place is Place.CONTAINER else None
    settings = container_settings(where, place, position)
    # A read-only workspace hides the repository, and its container has a setting of git in these variables.
    git = SAFE_GIT if settings and not settings.read_only_workspace and context.workspace.has_git else {}
    templates = layered(context.pipeline.env, container.env if container else {}, where.env)
    exported = position.exports.at(receiver_of(context, body, place))
    env = exported | git | {name: template.render(names) for name, template in templates.items()}
    if (body.agent or (secrets and secrets.is_proxied)) and reaches_workspace(env.get("PATH", "")):
        raise UsageError(f"a folder of the workspace is in its PATH: {AGENT_PATH}")
    exports = wants_exports(where)
    left = position.deadline.left if position.deadline else STEP_LIMIT
    return Command(
        id=f"{file_name(position.path_of(step.id))}-{serial}",
        step=step.id,
        serial=serial,
        script=agent_script(body, place, names) if body.agent else where.run.render_for_shell(names),
        shell=where.command_line,
        workspace=context.workspace.folder_on(context.side_of(place)),
        cwd=where.cwd.render(names) if where.cwd else ".",
        env=env,
        secrets=secrets.values if secrets else {},
        is_proxied=bool(secrets and secrets.is_proxied),
        way_out=secrets.way_out if secrets else "",
        files=_contents(context, body, names),
        wants_out=body.result is not None or exports,
        has_exports=exports,
        limit=left + context.project.lost_after + STOP_MARGIN,
        container=settings,
        has_git=context.workspace.has_git,
        hides=hidden_names(body) if place is Place.CONTAINER else (),
        as_login=body.as_login and place is Place.VM,
        network=_network(position) if container else None,
    )


def _network(position: WalkPosition) -> str | None:
    """Return the network of the services beside a container. Raises UsageError if there are those of two groups."""
    networks = list(dict.fromkeys(filter(None, (services.network for services in position.services))))
    if len(networks) > 1:
        raise UsageError("a container joins the services of one group alone: put them all on the outer group")
    return networks[0] if networks else None


def container_settings(where: Host, place: Place, position: WalkPosition) -> ContainerSettings | None:
    """Return the settings of a step's container at `place`; None if it has none there. Raises ExpressionError."""
    if place is not Place.CONTAINER:
        return None
    container = where.chosen(position.scope.names).container
    if container is None:
        return None
    return container.of_image(container.image.render(position.scope.on(place.value).names))


def _contents(context: RunContext, body: Run, names: Mapping[str, object]) -> dict[str, bytes]:
    """Return the files of a step, and for an agent its prompt, which may quote them, and the result's schema."""
    files = {file.name: _content(context, file, names) for file in body.files}
    if body.agent:
        texts = {name: data.decode("utf-8", "replace") for name, data in files.items()}
        files[PROMPT] = _content(context, body.agent.prompt, {**names, "files": texts})
        if body.result and body.result.schema_json is not None:
            files[SCHEMA] = json.dumps(body.result.schema_json, indent=1).encode()
    return files


def _content(context: RunContext, file: FileInput, names: Mapping[str, object]) -> bytes:
    match file.kind:
        case FileInputKind.TEXT | FileInputKind.TEMPLATE:
            return file.content.render(names).encode()
        case FileInputKind.FILE:
            path = context.pipeline.path.parent / Path(file.content.render(names)).expanduser()
            try:
                with context.readable.open(path) as opened:
                    return read_limited(opened, FILE_INPUT, str(path))
            except LimitExceeded as error:
                raise UsageError(f"the file {file.name!r}: {error.message}") from error
            except OSError as error:
                raise UsageError(f"cannot read {path} for the file {file.name!r}: {error.strerror}") from error
        case FileInputKind.PATCH:
            return _patch(context, file, file.content.render(names))
        case FileInputKind.SCHEMA:
            return json.dumps(find_schema(file.content.source, context.pipeline.path.parent), indent=1).encode()


def _patch(context: RunContext, file: FileInput, path: str) -> bytes:
    what_to_do = "name the file of an earlier `diff:` step, as in `patch: diff.patch`"
    try:
        return brief(result_target(path, context.run_dir))
    except ResultError as error:
        raise UsageError(f"{path!r} is not a valid path of a patch for the file {file.name!r}; {what_to_do}") from error
    except OSError as error:
        words = f"cannot read the patch {path!r} for the file {file.name!r}: {error.strerror}"
        raise UsageError(f"{words}; {what_to_do}") from error
