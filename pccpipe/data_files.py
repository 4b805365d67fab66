"""Finds the files that come with pccpipe: beside the package in a checkout, inside of it when installed."""

from __future__ import annotations

import functools
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def data_path(*parts: str) -> Path:
    """Return a path under schemas/, pipelines/ or docker/: `data_path("schemas", "pipeline.schema.json")`."""
    installed = _PACKAGE / "data" / Path(*parts)
    return installed if installed.exists() else _PACKAGE.parent / Path(*parts)


def agent_path(name: str) -> Path:
    """Return the file of a built-in agent."""
    return _PACKAGE / "agents" / f"{name}.yaml"


def built_in_agents() -> list[str]:
    """Return the names of the built-in agents."""
    return sorted(path.stem for path in (_PACKAGE / "agents").glob("*.yaml"))


@functools.cache
def schema_text(name: str) -> str:
    """Return the text of a published schema, such as `pipeline`, by the beginning of its file's name."""
    return data_path("schemas", f"{name}.schema.json").read_text(encoding="utf-8")
