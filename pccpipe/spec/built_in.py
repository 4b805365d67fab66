"""The pipelines that come with pccpipe, by name; no checkout is needed."""

from __future__ import annotations

from pathlib import Path

from pccpipe.data_files import data_path


def built_in_names() -> list[str]:
    """Return the names of all built-in pipelines."""
    return sorted(path.stem for path in data_path("pipelines").glob("*.yaml"))


def built_in(name: str) -> Path | None:
    """Return the file of a built-in pipeline; None if there is none of that name."""
    return data_path("pipelines", f"{name}.yaml") if name in built_in_names() else None


def may_be_built_in(name: str) -> bool:
    """Say whether this is a name and not a path: it has neither a folder nor an ending."""
    return "/" not in name and "." not in name
