"""Positions of a file's values and keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from msgspec import Struct

Key: TypeAlias = "str | int"
KeyPath: TypeAlias = tuple[Key, ...]
"""The keys and indexes that lead to a value, from the outside in."""


class Position(Struct, frozen=True, order=True, gc=False):
    """A place in a file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class SourceSpan(Struct, gc=False):
    """The positions of a value, of its key, and of the values inside it."""

    value: Position
    key: Position | None = None
    inner: dict[Key, SourceSpan] | None = None
    text: str | None = None
    """The text of a number or boolean in the file."""

    def at(self, path: KeyPath) -> SourceSpan | None:
        """Find the span at a path inside this one."""
        found: SourceSpan | None = self
        for key in path:
            found = found.inner.get(key) if found and found.inner else None
        return found

    def put(self, path: KeyPath, value: Position, key: Position | None) -> None:
        """Set the positions of a value and its key; the collection around it must have a span."""
        place = self.at(path[:-1])
        assert place
        place.add(path[-1], value, key)

    def add(self, name: Key, value: Position, key: Position | None) -> SourceSpan:
        """Set the positions of an item of this collection, and return its span."""
        if self.inner is None:
            self.inner = {}
        place = self.inner[name] = self.inner.get(name) or SourceSpan(value)
        place.value, place.key = value, key or place.key
        return place

    def all(self) -> Iterator[Position]:
        """Yield the positions of all values and keys."""
        waiting = [self]
        while waiting:
            place = waiting.pop()
            yield place.value
            if place.key:
                yield place.key
            waiting += (place.inner or {}).values()
