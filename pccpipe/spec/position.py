"""Positions in a text: where each value of a file stands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from msgspec import Struct

Key: TypeAlias = "str | int"
KeyPath: TypeAlias = tuple[Key, ...]
"""The keys and indexes that lead to a value, from the outside in."""


class Position(Struct, frozen=True, order=True, gc=False):
    """A place in a file; line and column from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class SourceSpan(Struct, gc=False):
    """Where a value stands, its key, and what is in it."""

    value: Position
    key: Position | None = None
    inner: dict[Key, SourceSpan] | None = None
    text: str | None = None
    """How a number or a truth value is written."""

    def at(self, path: KeyPath) -> SourceSpan | None:
        """Find the place of what is at the path in it."""
        found: SourceSpan | None = self
        for key in path:
            found = found.inner.get(key) if found and found.inner else None
        return found

    def put(self, path: KeyPath, value: Position, key: Position | None) -> None:
        """Set where a value and its key are; what is around it must have a place."""
        place = self.at(path[:-1])
        assert place
        place.add(path[-1], value, key)

    def add(self, name: Key, value: Position, key: Position | None) -> SourceSpan:
        """Set the place of something directly in it."""
        if self.inner is None:
            self.inner = {}
        place = self.inner[name] = self.inner.get(name) or SourceSpan(value)
        place.value, place.key = value, key or place.key
        return place

    def all(self) -> Iterator[Position]:
        """Give the positions of all values and keys."""
        waiting = [self]
        while waiting:
            place = waiting.pop()
            yield place.value
            if place.key:
                yield place.key
            waiting += (place.inner or {}).values()
