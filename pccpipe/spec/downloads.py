"""Reads and checks a step's `download:`: one path, a list of them, or a mapping."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from pccpipe.spec.build_values import ValueBuilder, string
from pccpipe.spec.data import items, mapping
from pccpipe.spec.habits import MessageAndHint
from pccpipe.spec.model import Download
from pccpipe.spec.names import Visible
from pccpipe.spec.position import KeyPath
from pccpipe.spec.texts import ValueChecker
from pccpipe.values import Json

_BRACES = re.compile(r"(?<!\\)\{[^{}/]*,[^{}/]*\}")


def build_download(make: ValueBuilder, path: KeyPath, spec: Json, *, by_name: bool) -> Download:
    """Make the model of a `download:`.

    Args:
        by_name: take each path as a name, as pccpipe did before it knew patterns.
    """
    return Download(
        tuple(make.template(place, each) for place, each in _paths(path, spec)),
        tuple(string(pattern) for pattern in items(mapping(spec).get("exclude"))),
        mapping(spec).get("required") is True,
        by_name,
    )


def check_download(values: ValueChecker, path: KeyPath, spec: Json, visible: Visible, *, older: bool) -> None:
    """Find paths that mean something else here than their author thinks."""
    for place, each in _paths(path, spec):
        values.text(place, each, visible)
        if not older and isinstance(each, str) and "${{" not in each and (words := wrong_path(each)):
            values.say(place, *words)


def wrong_path(path: str) -> MessageAndHint | None:
    """Find a path out of the workspace, and patterns of other tools."""
    parts = PurePosixPath(path).parts
    if not parts:
        return f"`{path}` is the whole workspace", "write `**` for all files"
    if path.startswith("/") or ".." in parts:
        return f"`{path}` is not a path in the workspace", "give a relative path without `..`"
    if path.startswith("!"):
        hint = f"write `exclude: [{path[1:]}]` beside `paths:`; for a file of that name, write `./{path}`"
        return "`!` leaves nothing out here", hint
    if braces := _BRACES.search(path):
        first, *rest = braces[0][1:-1].split(",")
        each = ", ".join(path.replace(braces[0], name) for name in (first, *rest[:1]))
        return f"`{braces[0]}` is not a pattern here", f"write one path for each: [{each}]"
    return None


def _paths(path: KeyPath, spec: Json) -> Iterator[tuple[KeyPath, Json]]:
    """Yield each path with its place in the file."""
    inner: Json = spec
    if isinstance(spec, Mapping):
        path, inner = (*path, "paths"), spec.get("paths")
    for index, each in enumerate(items(inner)):
        yield (*path, index) if isinstance(inner, list) else path, each
