"""Makes the matrix of a step of checked plain data."""

from __future__ import annotations

from typing import cast

from pccpipe.spec.data import listed, mapping
from pccpipe.spec.expression import Expression
from pccpipe.spec.matrix import PARTS, Leg, Matrix, Scalar
from pccpipe.spec.position import KeyPath
from pccpipe.spec.source import Source
from pccpipe.values import Json


def build_matrix(source: Source, path: KeyPath, data: Json) -> Matrix:
    """Make the matrix of a step."""
    if isinstance(data, str):
        return Matrix(whole=Expression(data, source.of_value(path)))
    given = mapping(data)
    values = {name: _values(source, (*path, name), part) for name, part in given.items() if name not in PARTS}
    include, exclude = (_entries(source, (*path, part), given.get(part)) for part in PARTS)
    return Matrix(values, include, exclude)


def _values(source: Source, path: KeyPath, data: Json) -> tuple[Scalar, ...] | Expression:
    return _expression(source, path, data) or tuple(cast("list[Scalar]", listed(data)))


def _entries(source: Source, path: KeyPath, data: Json) -> tuple[Leg, ...] | Expression:
    return _expression(source, path, data) or tuple(cast("list[Leg]", listed(data)))


def _expression(source: Source, path: KeyPath, data: Json) -> Expression | None:
    return Expression(data, source.of_value(path)) if isinstance(data, str) else None


def is_sound(data: Json) -> bool:
    """Say whether the structure is right; another problem says so if it is not."""
    if not isinstance(data, dict):
        return isinstance(data, str)
    parts = [data[part] for part in PARTS if part in data]
    values = [each for name, each in data.items() if name not in PARTS]
    return (
        all(isinstance(each, list | str) for each in (*parts, *values))
        and all(isinstance(value, str | int | float) for each in values for value in listed(each))
        and all(isinstance(entry, dict) for each in parts for entry in listed(each))
        and all(
            isinstance(value, str | int | float)
            for each in parts
            for entry in listed(each)
            for value in mapping(entry).values()
        )
    )
