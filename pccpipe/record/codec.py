"""An event as one line of JSON, and back. The kind's name is its class in snake case: `step_started`."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import types
import typing
from collections.abc import Mapping
from enum import Enum

from pccpipe.errors import PccpipeError
from pccpipe.record import events
from pccpipe.record.events import Event, Happening


class UnreadableEvent(PccpipeError):
    """A line of a journal that this version cannot read: torn, or of a kind that a newer one wrote."""


def encode(event: Event) -> bytes:
    """The event as a line, newline included."""
    fields = {field.name: _plain(getattr(event.what, field.name)) for field in dataclasses.fields(event.what)}
    line = {"seq": event.seq, "time": round(event.time, 6), "event": kind_of(event.what), **fields}
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"


def decode(line: bytes | str) -> Event:
    """The event of a line. Raises UnreadableEvent."""
    try:
        data = json.loads(line)
        kind = _kinds()[data["event"]]
        hints = _hints(kind)
        given = {field.name: _typed(data[field.name], hints[field.name]) for field in _present(kind, data)}
        return Event(int(data["seq"]), float(data["time"]), typing.cast(Happening, kind(**given)))
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise UnreadableEvent(f"{type(error).__name__}: {error}") from error


def kind_of(happening: Happening) -> str:
    """`step_started` for a StepStarted."""
    return _snake(type(happening).__name__)


@functools.cache
def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


@functools.cache
def _kinds() -> Mapping[str, type]:
    return {_snake(kind.__name__): kind for kind in typing.get_args(events.Happening)}


@functools.cache
def _hints(kind: type) -> Mapping[str, object]:
    return typing.get_type_hints(kind)


def _present(kind: type, data: Mapping[str, object]) -> list[dataclasses.Field[object]]:
    """The fields that the line has; one that an older version did not write keeps its default."""
    return [field for field in dataclasses.fields(kind) if field.name in data]


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _typed(value: object, hint: object) -> object:
    """`value` from JSON as `hint` says: enums, dataclasses and tuples are made again, all else is taken as it is."""
    if typing.get_origin(hint) in {types.UnionType, typing.Union}:
        if value is None:
            return None
        made = [kind for kind in typing.get_args(hint) if isinstance(kind, type) and _is_made(kind)]
        return _typed(value, made[0]) if made else value
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        return tuple(value)
    if isinstance(hint, type) and _is_made(hint):
        if issubclass(hint, Enum):
            return hint(value)
        if not isinstance(value, dict):
            raise TypeError(f"{hint.__name__} is written as an object")
        hints = _hints(hint)
        return hint(**{field.name: _typed(value[field.name], hints[field.name]) for field in _present(hint, value)})
    return value


def _is_made(kind: type) -> bool:
    return issubclass(kind, Enum) or dataclasses.is_dataclass(kind)
