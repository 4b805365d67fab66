"""Hostile YAML: each way to make much of a little text has a limit, in small steps and little memory."""

from __future__ import annotations

import pytest

from pccpipe import limits
from pccpipe.spec.source import BadYaml, parse_source
from tests.stall import measured

_PARSE = "from pccpipe.spec.source import parse_source"

HOSTILE = {
    "keys": ("b'a: 1\\n' * 200_000", "keys of one mapping"),
    "mappings": ("b''.join(b'a%d:\\n' % n + b' a: 1\\n' * 9000 for n in range(15))", "over 100000 values"),
    "good keys": ("b''.join(b'a%d:\\n' % m + b''.join(b' %x: 1\\n' % n for n in range(9000)) for m in range(10))", ""),
    "a key often": ("b''.join(b'a%d:\\n' % n + b' a: 1\\n' * 9900 for n in range(10))", "duplicate key"),
    "brackets": ("b'[' * 1_000_000", "nested over 64 levels deep"),
    "values deep down": ("b'[' * 63 + b'1,' * 99_000 + b']' * 63", ""),
    "keys deep down": ("b'{a: ' * 62 + b'{' + b','.join(b'%x: 1' % n for n in range(9000)) + b'}' * 63", ""),
    "chains": ("b'[' + (b'[' * 60 + b']' * 60 + b',') * 1400 + b']'", ""),
    "empty lines": ("b'a: 1' + b'\\n' * 1_000_000", ""),
    "short lines": ("b'a: |' + b'\\n xy' * 250_000", ""),
    "empty lines before a bad character": ("b'\\n' * 900_000 + b'\\x01'", "YAML does not allow the character"),
    "escapes": ("b'a: \"' + b'\\\\x41' * 250_000 + b'\"'", ""),
    "anchors": ("b'[' + b''.join(b'&%x ,' % n for n in range(90_000)) + b']'", ""),
    "a long text often": ("b'[&a ' + b'x' * 500_000 + b',' + b'*a,' * 99_000 + b']'", "exceeds the limit of 16 MiB"),
    "directives": ("b''.join(b'%%TAG !a%d! x\\n' % n for n in range(60_000))", "%TAG directives"),
    "a long tag often": (
        "b'%TAG !a! ' + b'x' * 500_000 + b'\\n---\\n[' + b'!a!b 1,' * 60_000 + b']'",
        "length of a tag",
    ),
    "a long number": ("b'a: 0x' + b'f' * 900_000", ""),
}


@pytest.mark.parametrize(("text", "said"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_takes_little_memory_and_blocks_no_thread(text: str, said: str) -> None:
    pause, memory, error = measured(_PARSE, f"parse_source({text}, 'f')")
    assert pause < limits.PAUSE
    assert memory < limits.MARGIN + limits.PIPELINE.most
    assert said in error
    assert bool(said) == bool(error)


def test_the_list_of_duplicate_keys_is_limited() -> None:
    with pytest.raises(BadYaml) as raised:
        parse_source(b"a: 1\n" * 1000, "f.yaml")
    assert len((raised.value, *raised.value.others)) == limits.PIPELINE_PROBLEMS.most


@pytest.mark.parametrize("number", ["9" * 5000, "0x" + "f" * 5000, "0o" + "7" * 5000])
def test_a_number_that_python_cannot_print_is_text(number: str) -> None:
    assert parse_source(f"a: {number}".encode(), "f.yaml").data == {"a": number}


def test_an_alias_inside_its_anchor_is_refused() -> None:
    with pytest.raises(BadYaml, match="contains itself"):
        parse_source(b"a: &a [1, [*a]]", "f.yaml")


def test_a_duplicate_anchor_is_refused() -> None:
    with pytest.raises(BadYaml, match="anchor"):
        parse_source(b"a: &a 1\nb: &a 2\n", "f.yaml")
