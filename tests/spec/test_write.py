"""Written YAML reads back unchanged."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pccpipe.spec.source import parse_source
from pccpipe.spec.write import yaml_text
from pccpipe.values import Json

_tricky = st.sampled_from(
    [
        "0o17",
        "1e3",
        "on",
        "no",
        "012",
        "0x1f",
        "~",
        "null",
        "true",
        ".inf",
        "1:30",
        "#",
        "*x",
        "",
        " a",
        "a\n",
        "\n b\n",
    ]
)
_texts = _tricky | st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]))
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcdefno", min_size=1), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(_tricky.filter(bool) | st.text("abc", min_size=1), _values, min_size=1, max_size=4))
def test_our_reader_reads_back_the_same(data: dict[str, Json]) -> None:
    assert parse_source(yaml_text(data).encode(), "f.yaml").data == data


def test_the_text_looks_handwritten() -> None:
    step: Json = {"id": "a", "on": "vm", "run": "one\ntwo\n", "env": {"N": "1", "M": 1}, "secrets": ["A"]}
    assert yaml_text({"steps": [step]}) == (
        "steps:\n  - id: a\n    on: vm\n    run: |\n      one\n      two\n"
        "    env:\n      N: '1'\n      M: 1\n    secrets:\n      - A\n"
    )
