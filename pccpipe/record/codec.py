"""An event as one line of JSON, and back. The kind's name is its class in snake case: `step_started`."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from enum import Enum
from typing import TypeAlias, cast

from pccpipe.errors import PccpipeError
from pccpipe.record import events
from pccpipe.record.events import Event, Happening
from pccpipe.values import Json

Reader: TypeAlias = "Callable[[Json], object]"
"""Makes a field's value of what the line has; raises TypeError or ValueError for anything else."""


_DECODER = json.JSONDecoder()


class UnreadableEventError(PccpipeError):
    """A line of a journal that this version cannot read: torn, or of a kind that a newer one wrote."""


def encode(event: Event, text: Callable[[str], str] = str) -> bytes:
    """The event as a line, newline included; each of its texts as `text` makes it."""
    fields = to_json(event.what, text)
    assert isinstance(fields, dict)
    line = {"seq": event.seq, "time": round(event.time, 6), "event": kind_of(event.what), **fields}
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"


def decode(line: bytes | str) -> Event:
    """The event of a line. Raises UnreadableEventError."""
    try:
        # Not `json.loads`, which looks at each line for what it is encoded in.
        data = _DECODER.decode(line if isinstance(line, str) else line.decode("utf-8", "surrogatepass"))
        kind, readers = _kinds()[data["event"]]
        given = {name: read(data[name]) for name, read in readers if name in data}
        return Event(_read_int(data["seq"]), _read_float(data["time"]), kind(**given))
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise UnreadableEventError(f"{type(error).__name__}: {error}") from error


def kind_of(happening: Happening) -> str:
    """`step_started` for a StepStarted."""
    return _snake(type(happening).__name__)


def to_json(value: object, text: Callable[[str], str] = str) -> Json:
    """Plain data, enums and dataclasses (by field) as JSON's types. A number that JSON cannot write becomes None.

    Args:
        text: applied to each text, keys of mappings too; not to enums' words and fields' names, which are ours.
    """
    kind: type = type(value)
    if kind is str:
        return text(cast(str, value))
    if value is None or kind is int or kind is bool:
        return cast("int | None", value)
    names = _names(kind)
    if names is not None:
        return {name: to_json(getattr(value, name), text) for name in names}
    match value:
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
            raise TypeError(f"{kind.__name__} is nothing for a record")


@functools.cache
def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


@functools.cache
def _names(kind: type) -> tuple[str, ...] | None:
    """The fields of a dataclass; None for any other type."""
    return tuple(field.name for field in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else None


@functools.cache
def _kinds() -> Mapping[str, tuple[Callable[..., Happening], tuple[tuple[str, Reader], ...]]]:
    return {_snake(kind.__name__): (kind, _readers(kind)) for kind in typing.get_args(events.Happening)}


@functools.cache
def _readers(kind: type) -> tuple[tuple[str, Reader], ...]:
    """A reader for each field. A field that an older version did not write keeps its default, if it has one."""
    hints = typing.get_type_hints(kind)
    return tuple((name, _reader(hints[name])) for name in _names(kind) or ())


def _reader(hint: object) -> Reader:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in {types.UnionType, typing.Union}:
        if any(typing.get_origin(argument) is list for argument in arguments):
            return _read_json
        (inner,) = (argument for argument in arguments if argument is not types.NoneType)
        return _optional(_reader(inner))
    if origin is tuple:
        return _read_texts
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _read_mapping
    assert isinstance(hint, type)
    if issubclass(hint, Enum):
        # A table of its words: to call an Enum takes 5 times as long.
        return {member.value: member for member in hint}.__getitem__
    if dataclasses.is_dataclass(hint):
        return functools.partial(_read_dataclass, hint)
    return _PLAIN[hint]


def _optional(read: Reader) -> Reader:
    return lambda value: None if value is None else read(value)


def _read_json(value: Json) -> Json:
    return value


def _read_texts(value: Json) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is not a list")
    return tuple(_read_text(item) for item in value)


def _read_mapping(value: Json) -> Mapping[str, Json]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is not an object")
    return value


def _read_dataclass(kind: Callable[..., object], value: Json) -> object:
    given = _read_mapping(value)
    assert isinstance(kind, type)
    return kind(**{name: read(given[name]) for name, read in _readers(kind) if name in given})


def _read_text(value: Json) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _read_bool(value: Json) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is not true or false")
    return value


def _read_int(value: Json) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not an integer")
    return value


def _read_float(value: Json) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


_PLAIN: Mapping[type, Reader] = {str: _read_text, bool: _read_bool, int: _read_int, float: _read_float}
