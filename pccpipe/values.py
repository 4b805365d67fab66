"""The plain values of files, events and results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
else:
    # msgspec does not support an alias that names itself.
    Json = Any


class Discreet(Struct, frozen=True):
    """A value with fields that must not get into a log or a traceback: its repr leaves them out."""

    hidden: ClassVar[frozenset[str]] = frozenset()

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name not in self.hidden)
        return f"{type(self).__name__}({', '.join(shown)})"


def cut(text: str, most: int) -> str:
    """Cut a text after `most` characters, and end it with three dots: masking finds a cut secret by these."""
    return text if len(text) <= most else f"{text[:most]}..."
