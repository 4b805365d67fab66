"""Writes an event as one line of JSON, and reads it. A kind's name is its class in snake case: `step_started`."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping
from enum import Enum
from typing import cast

from msgspec import MsgspecError, Struct
from msgspec.json import Decoder

from pccpipe.errors import PccpipeError
from pccpipe.record.events import Event, Happening
from pccpipe.values import Json


class UnreadableEventError(PccpipeError):
    """A line of a journal that this version cannot read: torn, or of a kind that a newer version wrote."""


class _Stamp(Struct, frozen=True):
    """The number and time of a line."""

    seq: int
    time: float


def encode(event: Event, text: Callable[[str], str] = str) -> bytes:
    """Return the event as a line, newline included; `text` maps each of its texts."""
    # msgspec writes no integer of over 64 bits; a step's result may have one.
    line = json.dumps(event_fields(event, text), ensure_ascii=False, separators=(",", ":"))
    return line.encode("utf-8", "replace") + b"\n"


def event_fields(event: Event, text: Callable[[str], str] = str) -> dict[str, Json]:
    """Return the event as plain data, as a line of the journal has it."""
    fields = to_json(event.what, text)
    assert isinstance(fields, dict)
    return {"seq": event.seq, "time": round(event.time, 6), "event": kind_of(event.what), **fields}


def decode(line: bytes | str) -> Event:
    """Return the event of a line. A missing field of an older version has its default. Raises UnreadableEventError."""
    stamps, happenings = _decoders()
    try:
        stamp = stamps.decode(line)
        return Event(stamp.seq, stamp.time, happenings.decode(line))
    except (MsgspecError, ValueError, RecursionError) as error:
        raise UnreadableEventError(f"{type(error).__name__}: {error}") from error


def kind_of(happening: Happening) -> str:
    """Return the name of its kind: `step_started` for a StepStarted."""
    return str(happening.__struct_config__.tag)


def to_json(value: object, text: Callable[[str], str] = str) -> Json:
    """Return plain data, enums and Structs (by field) as JSON. A number that JSON cannot write becomes None.

    Args:
        text: applied to each text and each key of a mapping; not to the words of enums and the names of fields.
    """
    kind: type = type(value)
    if kind is str:
        return text(cast(str, value))
    if value is None or kind is int or kind is bool:
        return cast("int | None", value)
    match value:
        case Struct():
            return {name: to_json(getattr(value, name), text) for name in value.__struct_fields__}
        case Enum():
            return str(value.value)
        case str():
            return text(value)
        case float():
            return value if math.isfinite(value) else None
        case list() | tuple():
            return [to_json(item, text) for item in value]
        case Mapping():
            return {text(str(key)): to_json(item, text) for key, item in value.items()}
        case _:
            raise TypeError(f"{kind.__name__} cannot be in a record")


@functools.cache
def _decoders() -> tuple[Decoder[_Stamp], Decoder[Happening]]:
    return Decoder(_Stamp), Decoder(Happening)
