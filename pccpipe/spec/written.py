"""Keeps the author's text of values that become text: `1.20` stays 1.20, and `83e2010` does not become a number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from pccpipe.spec.data import listed, mapping
from pccpipe.spec.matrix import PARTS
from pccpipe.spec.position import KeyPath
from pccpipe.spec.source import Source
from pccpipe.values import Json

_Slot: TypeAlias = "tuple[KeyPath, list[Json] | dict[str, Json], int | str]"
"""A value: its path, and the list or mapping that holds it by that key."""
_STEPS = ("steps", "always", "parallel", "before", "after")


def keep_texts(source: Source) -> None:
    """Make texts of variables and build arguments, and of a matrix's values if one of them must be text."""
    for path, variables in _variables(source.data, ()):
        for name, value in variables.items():
            variables[name] = _text(source, (*path, name), value)
    for path, matrix in _matrices(source.data, ()):
        _keep_of_matrix(source, path, matrix)
    for name, spec in mapping(mapping(source.data).get("inputs")).items():
        if isinstance(values := mapping(spec).get("default"), list):
            _keep_all(source, [(("inputs", name, "default", index), values, index) for index in range(len(values))])


def _keep_of_matrix(source: Source, path: KeyPath, matrix: dict[str, Json]) -> None:
    """Make texts of all values of a name, those under `include:` and `exclude:` too."""
    slots: dict[str, list[_Slot]] = {}
    for name, values in matrix.items():
        for index, value in enumerate(listed(values)):
            if name not in PARTS:
                slots.setdefault(name, []).append(((*path, name, index), listed(values), index))
            for key in mapping(value) if name in PARTS else ():
                slots.setdefault(key, []).append(((*path, name, index, key), mapping(value), key))
    for each in slots.values():
        _keep_all(source, each)


def _keep_all(source: Source, slots: Sequence[_Slot]) -> None:
    """Make texts of values if one of them must be text."""
    texts = [_text(source, path, data[key]) for path, data, key in slots]  # type: ignore[index]
    values = [data[key] for _, data, key in slots]  # type: ignore[index]
    if not all(_is_canonical(value, text) for value, text in zip(values, texts, strict=True)):
        for (_, data, key), text in zip(slots, texts, strict=True):
            data[key] = text  # type: ignore[index]


def _text(source: Source, path: KeyPath, value: Json) -> Json:
    text = source.text_of(path)
    return value if text is None else text


def _is_canonical(value: Json, text: Json) -> bool:
    """Say whether a value prints as the author wrote it, or is not a number."""
    return isinstance(value, bool) or not isinstance(value, int | float) or text == str(value)


def _variables(data: Json, path: KeyPath) -> Iterator[tuple[KeyPath, dict[str, Json]]]:
    """Yield each mapping of texts, with its path."""
    if not path:
        yield from _mapping_at(data, (), "env")
        yield from _of_defaults(data, ())
        for name, container in mapping(mapping(data).get("containers")).items():
            yield from _mapping_at(container, ("containers", name), "env")
    for at, step in _steps(data, path):
        yield from _mapping_at(step, at, "env")
        yield from _of_defaults(step, at)
        yield from _mapping_at(mapping(step).get("fallback"), (*at, "fallback"), "env")
        yield from _mapping_at(mapping(step).get("build"), (*at, "build"), "args")


def _of_defaults(data: Json, path: KeyPath) -> Iterator[tuple[KeyPath, dict[str, Json]]]:
    defaults = mapping(data).get("defaults")
    yield from _mapping_at(defaults, (*path, "defaults"), "env")
    yield from _mapping_at(mapping(defaults).get("fallback"), (*path, "defaults", "fallback"), "env")


def _matrices(data: Json, path: KeyPath) -> Iterator[tuple[KeyPath, dict[str, Json]]]:
    for at, step in _steps(data, path):
        yield from _mapping_at(step, at, "matrix")


def _steps(data: Json, path: KeyPath) -> Iterator[tuple[KeyPath, Json]]:
    """Yield each step, and each `set:` of an included one."""
    for key in _STEPS:
        for index, step in enumerate(listed(mapping(data).get(key))):
            yield (*path, key, index), step
            yield from _steps(step, (*path, key, index))
    for name, change in mapping(mapping(data).get("change")).items() if not path else ():
        yield ("change", name, "set"), mapping(change).get("set")
        yield from _steps(change, ("change", name))


def _mapping_at(data: Json, path: KeyPath, key: str) -> Iterator[tuple[KeyPath, dict[str, Json]]]:
    found = mapping(data).get(key)
    if isinstance(found, dict):
        yield (*path, key), found
