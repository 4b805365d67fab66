"""Helpers for plain data that may have wrong types."""

from __future__ import annotations

from collections.abc import Iterator

from pccpipe.spec.position import KeyPath
from pccpipe.values import Json


def mapping(data: Json) -> dict[str, Json]:
    """Return the data if it is a mapping, else an empty one."""
    return data if isinstance(data, dict) else {}


def listed(data: Json) -> list[Json]:
    """Return the data if it is a list, else an empty one."""
    return data if isinstance(data, list) else []


def items(data: Json) -> list[Json]:
    """Return the data if it is a list, else a list of it alone; an empty one for None."""
    return data if isinstance(data, list) else [data] if data is not None else []


def walk(data: Json, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Json]]:
    """Yield every value with its path, from the outside in."""
    yield path, data
    if isinstance(data, dict):
        for key, value in data.items():
            yield from walk(value, (*path, key))
    elif isinstance(data, list):
        for index, item in enumerate(data):
            yield from walk(item, (*path, index))
