"""The YAML loader: 1.2's core types, positions, limits."""

from __future__ import annotations

import contextlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pccpipe import limits
from pccpipe.spec.position import Position
from pccpipe.spec.source import BadYaml, parse_source
from pccpipe.values import Json


def load(text: str) -> Json:
    return parse_source(text.encode(), "f.yaml").data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on: vm", {"on": "vm"}),
        ("no: off", {"no": "off"}),
        ("yes", "yes"),
        ("010", 10),
        ("0o17", 15),
        ("0xff", 255),
        ("1e3", 1000.0),
        ("1_000", "1_000"),
        ("22:22", "22:22"),
        ("2026-11-23", "2026-11-23"),
        ("1.10", 1.1),
        ("'1'", "1"),
        ("!!str 1", "1"),
        ("!!float 1", 1.0),
        ("[true, True, TRUE, y, on]", [True, True, True, "y", "on"]),
        ("[~, null, ]", [None, None]),
        ("a: =", {"a": "="}),
        ("1: one", {"1": "one"}),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Json) -> None:
    assert load(text) == value
    assert type(load(text)) is type(value)


def test_infinity_and_nan_are_floats() -> None:
    assert load("-.inf") == -math.inf
    nan = load(".nan")
    assert isinstance(nan, float)
    assert math.isnan(nan)


def test_keys_and_values_have_positions() -> None:
    source = parse_source(b"a:\n  b: [1, {c: x}]\n", "f.yaml")
    assert source.of_key(("a", "b")) == Position("f.yaml", 2, 3)
    assert source.of_value(("a", "b", 1, "c")) == Position("f.yaml", 2, 14)
    assert source.of_key(("a", "nothing", "here")) == Position("f.yaml", 1, 1)
    assert source.line(2) == "  b: [1, {c: x}]"


def test_a_small_file_cannot_become_a_large_one() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 8)]
    with pytest.raises(BadYaml, match=str(limits.PIPELINE_VALUES.most)):
        load("\n".join(lines))


def test_depth_and_size_are_limited() -> None:
    with pytest.raises(BadYaml, match="nested"):
        load("[" * 100 + "]" * 100)
    with pytest.raises(BadYaml, match="bytes"):
        parse_source(b"#" * (1 << 21), "f.yaml")


def test_text_that_is_not_utf_8_is_refused_at_its_position() -> None:
    with pytest.raises(BadYaml) as raised:
        parse_source(b"a: 1\nb: \xff\n", "f.yaml")
    assert raised.value.position == Position("f.yaml", 2, 4)


def test_a_byte_order_mark_is_ignored() -> None:
    assert parse_source(b"\xef\xbb\xbfa: 1", "f.yaml").data == {"a": 1}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcdef", min_size=1), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_json_is_yaml_and_means_the_same(value: Json) -> None:
    assert load(json.dumps(value, ensure_ascii=True)) == value


@given(st.text(max_size=200))
def test_any_text_loads_or_is_refused(text: str) -> None:
    with contextlib.suppress(BadYaml):
        parse_source(text.encode("utf-8", "surrogatepass"), "f.yaml")
