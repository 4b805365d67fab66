"""The pipelines that come with pccpipe: known by name, also where there is no checkout."""

from __future__ import annotations

from pathlib import Path

from pccpipe.data_files import data_path


def built_in_names() -> list[str]:
    """The names of all of them."""
    return sorted(path.stem for path in data_path("pipelines").glob("*.yaml"))


def built_in(name: str) -> Path | None:
    """The file of the one with that name; None if there is none."""
    return data_path("pipelines", f"{name}.yaml") if name in built_in_names() else None


def may_be_built_in(name: str) -> bool:
    """Whether it is a name, and no path: without folders and without an ending."""
    return "/" not in name and "." not in name
