"""The `defaults:` of a pipeline and of its groups, as plain data."""

from __future__ import annotations

from collections.abc import Mapping

from pccpipe.spec.data import mapping
from pccpipe.spec.env import merged
from pccpipe.values import Json


def nested(around: Mapping[str, Json], own: Mapping[str, Json]) -> dict[str, Json]:
    """Return the defaults inside of a group: its own add to those around it."""
    inherited = dict(around)
    if "container" in own and "on" not in own:
        inherited.pop("on", None)  # the container says where its steps run
    return {**inherited, **own, "env": merged(around.get("env"), own.get("env"))}


def place_of(step: Mapping[str, Json], defaults: Mapping[str, Json]) -> str:
    """Return where a step runs, by its own keys or by its defaults."""
    own = step if "on" in step or "container" in step else defaults
    return str(own.get("on", "container" if "container" in own else "local"))


def default_fallback(defaults: Mapping[str, Json], on: str) -> dict[str, Json]:
    """Return the fallback that a step at `on` has without one of its own; empty if it can't fall back there."""
    fallback = mapping(defaults.get("fallback"))
    to = fallback.get("on")
    return {} if on in ("local", to) or (on, to) == ("vm", "container") else fallback
