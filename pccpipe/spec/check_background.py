"""Finds problems of background commands that no schema can say: their places, and their places in the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from pccpipe.spec.data import mapping
from pccpipe.spec.names import Visible
from pccpipe.spec.position import KeyPath
from pccpipe.spec.texts import ValueChecker
from pccpipe.values import Json


def check_background(
    values: ValueChecker, path: KeyPath, step: Mapping[str, Json], on: str, shell: str, visible: Visible
) -> None:
    """Check a step with `run:` that may have `background:` and `ready:`."""
    ready = mapping(step.get("ready"))
    values.script((*path, "ready", "run"), ready.get("run"), shell, visible)
    if step.get("background") is not True:
        return
    at = (*path, "background")
    if on == "container" or mapping(step.get("fallback")).get("on") == "container":
        hint = "set `on: vm` or `on: local`, or make it one of the `services:`"
        values.say(at, "a background command does not run in a container", hint, at_key=True)
    group = path[-2] if len(path) > 1 else ""
    if group in {"parallel", "always"}:
        hint = "put it with the steps that use it into a group of their own: `steps:`"
        values.say(at, f"a step of `{group}:` cannot go on in the background", hint, at_key=True)
    elif path[-1] == len(_siblings(values.source.data, path)) - 1:
        hint = "put it before the steps that use it"
        values.say(at, "no step follows this background command, so it would end at once", hint, at_key=True)


def _siblings(data: Json, path: KeyPath) -> list[Json]:
    for part in path[:-1]:
        data = data[part] if isinstance(data, list) else mapping(data)[str(part)]  # type: ignore[index]
    return cast("list[Json]", data)
