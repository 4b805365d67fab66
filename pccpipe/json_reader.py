"""Reads untrusted JSON: checks its depth and number of values before it makes any.

The caller bounds its size, before the data is in memory.
"""

from __future__ import annotations

import json
import re

from pccpipe import limits
from pccpipe.errors import LimitExceeded
from pccpipe.limits import Limit
from pccpipe.values import Json

_PIECE = 64 << 10
_OUTSIDE = re.compile(rb'[^"\[\]{},:]{0,%d}' % _PIECE)
_INSIDE = re.compile(rb'[^"\\]{0,%d}' % _PIECE)
_HALF = re.compile("[\ud800-\udfff]")
_ESCAPES_A_VALUE = 8
"""The number of escapes that cost as much as one value."""


class NotJson(ValueError):
    """The data is not JSON, or some readers of JSON would refuse it."""


def read_json(data: bytes, where: str, values: Limit = limits.JSON_VALUES, depth: Limit = limits.JSON_DEPTH) -> Json:
    """Read the value of `data`; its texts have only whole characters, and its numbers are finite.

    Args:
        data: UTF-8, bounded by the caller.
        where: the name of the data in messages.
        values: the limit of its values, keys included.
        depth: the limit of its nesting.

    Raises NotJson, LimitExceeded.
    """
    _measure(data, where, values, depth)
    try:
        value: Json = json.loads(
            data.decode("utf-8"), parse_constant=_no_constant, parse_float=_finite, parse_int=_whole_number
        )
    except UnicodeDecodeError as error:
        raise NotJson(f"{where} is not UTF-8 text (byte {error.start})") from None
    except (ValueError, RecursionError) as error:
        raise NotJson(f"{where} is not valid JSON: {error}") from None
    if half := _half_in(value):
        raise NotJson(f"{where} contains half a character (U+{ord(half):04X})")
    return value


def _measure(data: bytes, where: str, values: Limit, depth: Limit) -> None:
    """Count the values of `data` in small steps, so that no step holds the interpreter lock for long."""
    at, level, eighths = 0, 0, _ESCAPES_A_VALUE
    most = values.most * _ESCAPES_A_VALUE
    end = len(data)
    while at < end:
        at = _OUTSIDE.match(data, at).end()  # type: ignore[union-attr]
        if at >= end:
            break
        match data[at]:
            case 0x22:
                at, escapes = _end_of_text(data, at + 1, most - eighths)
                eighths += escapes
            case 0x5B | 0x7B:
                level += 1
                eighths += _ESCAPES_A_VALUE
                at += 1
                if level > depth.most:
                    raise LimitExceeded(depth, f"the nesting in {where}")
            case 0x5D | 0x7D:
                level -= 1
                at += 1
            case 0x2C | 0x3A:
                eighths += _ESCAPES_A_VALUE
                at += 1
            case _:
                pass  # a long piece outside of texts continues
        if eighths > most:
            raise LimitExceeded(values, f"the number of values in {where}")


def _end_of_text(data: bytes, at: int, most: int) -> tuple[int, int]:
    """Return the index after a text's closing quote, and the number of its escapes; stop soon after `most`."""
    escapes = 0
    end = len(data)
    while at < end and escapes <= most:
        at = _INSIDE.match(data, at).end()  # type: ignore[union-attr]
        match data[at : at + 1]:
            case b'"':
                return at + 1, escapes
            case b"\\":
                at += 2
                escapes += 1
            case _:
                pass  # a long text continues
    return at, escapes


def _half_in(value: Json) -> str:
    """Return the first half of a surrogate pair in any text of a value; empty if there is none."""
    left: list[Json] = [value]
    while left:
        match left.pop():
            case str() as text:
                if not text.isascii() and (found := _HALF.search(text)):
                    return found[0]
            case list() as items:
                left += items
            case dict() as items:
                left += items
                left += items.values()
            case _:
                pass
    return ""


def _no_constant(word: str) -> Json:
    raise ValueError(f"{word} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if number in {float("inf"), float("-inf")}:
        raise ValueError(f"the number {_short(text)} is too large")
    return number


def _whole_number(text: str) -> int:
    if len(text) > limits.JSON_DIGITS.most:
        raise ValueError(f"the number {_short(text)} has more than {limits.JSON_DIGITS.most} digits")
    return int(text)


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}..."
