"""Puts the levels of `env:` together, and checks the PATH in them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec.structs import replace

from pccpipe.search_path import INHERITED, extended
from pccpipe.spec.expression import Template
from pccpipe.values import Json

_DOLLAR = re.compile(r"\$(?!\{\{)")


def layered(*levels: Mapping[str, Template]) -> dict[str, Template]:
    """Return the variables of all levels, the outermost first; `$PATH` in a PATH is that of the level before."""
    found: dict[str, Template] = {}
    for level in levels:
        outer = found.get("PATH")
        found.update(level)
        if outer and "PATH" in level:
            inner = level["PATH"]
            found["PATH"] = replace(inner, source=extended(outer.source, inner.source))
    return found


def merged(*levels: Json) -> dict[str, Json]:
    """Return the same of plain data."""
    found: dict[str, Json] = {}
    for level in levels:
        if isinstance(level, dict):
            outer, inner = found.get("PATH"), level.get("PATH")
            found.update(level)
            if isinstance(outer, str) and isinstance(inner, str):
                found["PATH"] = extended(outer, inner)
    return found


def path_problem(value: object) -> tuple[str, str] | None:
    """Find an entry of a PATH that a shell would expand, and pccpipe does not."""
    listed = str(value).split(":") if isinstance(value, str) else []
    if sum(entry in INHERITED for entry in listed) > 1:
        return "`$PATH` appears twice in a PATH", "keep one of them"
    for entry in listed:
        if entry in INHERITED:
            continue
        if _DOLLAR.search(entry):
            message = f"`{entry}` is not expanded here: in a PATH only the entry `$PATH` is"
            return message, f"""set it on the first line of `run:`: export PATH="{value}\""""
        if entry.startswith("~"):
            return (
                f"`{entry}` is not expanded here",
                f"""set it on the first line of `run:`: export PATH="$HOME{entry[1:]}:$PATH\"""",
            )
    return None
