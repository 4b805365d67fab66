"""Reads `ready:`, and finds the keys that cannot stand beside `background:`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from msgspec import Struct

from pccpipe.spec import units
from pccpipe.spec.data import mapping
from pccpipe.spec.expression import Template
from pccpipe.spec.position import KeyPath
from pccpipe.spec.source import Source
from pccpipe.values import Json

EVERY = "1s"
TIMEOUT = "60s"
_REFUSED = {
    "retry": "put `retry:` on a group with this step and the steps that use it",
    "matrix": "put the `matrix:` on a group with this step and the steps that use it",
    "result": "it ends with its group: let a later step write the result",
    "max_tokens": "set it on a step that ends by itself",
    "budget": "set it on a step that ends by itself",
}
"""The keys that a background command does not take, each with its hint."""


class Ready(Struct, frozen=True):
    """The check that a background command, or a service, is ready; a script that then exits 0."""

    run: Template
    every: float
    """Seconds between two attempts."""
    timeout: float
    """Seconds in which it must be ready."""


def build_ready(source: Source, path: KeyPath, spec: Json) -> Ready | None:
    """Return the check at a path of the file; None without a `run:`."""
    data = mapping(spec)
    if "run" not in data:
        return None
    return Ready(
        Template(str(data["run"]), source.of_value((*path, "run"))),
        units.seconds(cast("str | float", data.get("every", EVERY))),
        units.seconds(cast("str | float", data.get("timeout", TIMEOUT))),
    )


def misplaced_background(key: str, step: Mapping[str, Json]) -> tuple[str, str] | None:
    """Return a message and hint for a key that cannot stand beside `background:`, or needs it; None for others."""
    if key in {"background", "ready"} and "run" not in step:
        bodies = [body for body in step if body in {"agent", "upload", "download", "diff", "remove", "build"}]
        what = f"`{key}` cannot be combined with `{bodies[0]}`" if bodies else f"a group takes no `{key}`"
        return what, "it belongs to a step with `run:`; `services:` keeps a container beside the steps"
    if key == "ready":
        return "`ready` needs `background: true`", "the next step waits for the end of this one"
    if step.get("background") is True and key in _REFUSED:
        return f"a background command takes no `{key}`", _REFUSED[key]
    return None
