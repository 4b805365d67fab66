"""The plain values that files, events and results are made of, and the one that several parts begin with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
else:
    # What msgspec takes for it: it knows no alias that names itself, and reads nothing else into it.
    Json = Any


class Discreet(Struct, frozen=True):
    """A value of which some fields are not for a log or a traceback: its repr leaves them out."""

    hidden: ClassVar[frozenset[str]] = frozenset()

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name not in self.hidden)
        return f"{type(self).__name__}({', '.join(shown)})"


def cut(text: str, most: int) -> str:
    """The text, with three dots for all after `most` characters. By these, masking finds a secret that was cut."""
    return text if len(text) <= most else f"{text[:most]}..."


ENDPOINT = "https://api.openai.com/v1"
"""The base URL of the model's API where nobody names another."""
