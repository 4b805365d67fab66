"""Follows the `extends:` of containers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pccpipe.spec.data import mapping
from pccpipe.values import Json


def extended(containers: Mapping[str, Json], name: str) -> list[str]:
    """Return a container and those that it extends, the nearest first; stop at an unknown or repeated one."""
    chain: dict[str, None] = {}
    parent: Json = name
    while isinstance(parent, str) and parent in containers and parent not in chain:
        chain[parent] = None
        parent = mapping(containers[parent]).get("extends")
    return list(chain)


def settings(containers: Mapping[str, Json], chain: Iterable[str]) -> dict[str, Json]:
    """Return the settings of a chain of containers; the nearer one wins."""
    return {key: value for name in reversed(list(chain)) for key, value in mapping(containers[name]).items()}
