"""The limits of a stranger's JSON: beyond them, no value is made."""

from __future__ import annotations

import pytest

from pccpipe import limits
from pccpipe.errors import LimitExceeded
from pccpipe.json_reader import NotJson, read_json
from pccpipe.limits import Limit
from pccpipe.values import Json
from tests.stall import measured

FIVE = Limit("the number of values in JSON", 5, limits.Unit.COUNT, "a test")


def read(data: bytes, values: Limit = limits.JSON_VALUES) -> Json:
    return read_json(data, "the data", values)


def nested(depth: int) -> bytes:
    return (
        b'[{"a":' * (depth // 2)
        + b"[" * (depth % 2)
        + b"]" * (depth % 2)
        + (b"1" if depth % 2 == 0 else b"")
        + (b"}]" * (depth // 2))
    )


def test_the_deepest_nesting_is_allowed_and_one_level_more_is_not() -> None:
    most = limits.JSON_DEPTH.most
    read(nested(most))
    read(nested(most - 1))
    with pytest.raises(LimitExceeded, match="the nesting in the data exceeds the limit of 100"):
        read(nested(most + 1))
    # Side by side they are not nested.
    read(b"[" + b",".join([b"[[]]"] * 3 * most) + b"]")


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (b"[1,2,3,4]", 5),
        (b'{"a":1,"b":2}', 5),
        (b"[[],[],[]]", 6),
        (b'["\\n\\n\\n\\n\\n\\n\\n\\n",1,2,3]', 6),
        (b'["' + b"\\u0041" * 25 + b'"]', 6),
        (b'["' + b"\\u0041" * 24 + b'"]', 5),
        (b'["[,,,,,,,,:::::]\\"[,,,,"]', 2),
        (b'{"a,b:c":"{,:"}', 3),
    ],
)
def test_values_are_counted_before_they_are_made(data: bytes, count: int) -> None:
    if count <= FIVE.most:
        assert read(data, FIVE) is not None
        return
    with pytest.raises(LimitExceeded, match="the number of values in the data exceeds the limit of 5"):
        read(data, FIVE)


def test_the_digits_of_a_number_are_limited() -> None:
    most = limits.JSON_DIGITS.most
    assert read(b"9" * most) == int("9" * most)
    with pytest.raises(NotJson, match="more than 100 digits"):
        read(b"9" * (most + 1))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"NaN", "NaN is not a JSON number"),
        (b"[-Infinity]", "-Infinity is not a JSON number"),
        (b"1e999", "too large"),
        (b"[-1e999]", "too large"),
        (b'"\\ud800"', "half a character"),
        (b'{"\\udfff": 1}', "half a character"),
        (b'[{"a": {"b": ["\\ud83dx"]}}]', "half a character"),
        (b'"\xff"', r"not UTF-8 text \(byte 1\)"),
        (b"\xef\xbb\xbf1", "not valid JSON"),
        (b"[1", "not valid JSON"),
        (b"[1]]", "not valid JSON"),
        (b'"a', "not valid JSON"),
        (b'"a\\', "not valid JSON"),
        (b"", "not valid JSON"),
    ],
)
def test_json_that_some_reader_refuses_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(NotJson, match=words) as caught:
        read(data)
    assert str(caught.value).startswith("the data ")


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'"NaN"', "NaN"),
        (b"[1e308, -0.0, 0, true, null]", [1e308, -0.0, 0, True, None]),
        (b' {"a" : [ ] } \n', {"a": []}),
        (b'{"a":1,"a":2}', {"a": 2}),
    ],
)
def test_json_that_every_reader_accepts_is_read(data: bytes, value: Json) -> None:
    assert read(data) == value


@pytest.mark.parametrize(
    "data",
    [
        "b'[' * (16 << 20)",
        "b'\"' + b'x' * (16 << 20)",
        "b'\"' + b'\\\\\\\\n' * (5 << 20)",
        "b' ' * (16 << 20)",
        "b'\"\",' * (5 << 20)",
        "b'[' + b'9' * (5 << 20) + b']'",
    ],
)
def test_reading_never_holds_the_interpreter_lock_for_long(data: str) -> None:
    setup = f"from pccpipe.json_reader import read_json\ndata = {data}"
    longest, memory, said = measured(setup, "read_json(data, 'the data')")
    assert said.startswith(("LimitExceeded", "NotJson"))
    assert longest <= limits.PAUSE
    assert memory <= 2 * limits.MARGIN
