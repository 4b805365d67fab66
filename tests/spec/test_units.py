"""Durations and sizes, ordinary and huge ones."""

from __future__ import annotations

import pytest

from pccpipe.spec.units import LARGEST, LONGEST, seconds, size, tokens

DIGITS = "9" * 400


@pytest.mark.parametrize("text", [f"{DIGITS}d", int(DIGITS), float("1e300")])
def test_a_huge_duration_is_the_longest(text: str | float) -> None:
    assert seconds(text) == LONGEST


@pytest.mark.parametrize("text", [f"{DIGITS}g", DIGITS, int(DIGITS)])
def test_a_huge_size_is_the_largest(text: str | int) -> None:
    assert size(text) == LARGEST


def test_durations_and_sizes_are_read() -> None:
    assert (seconds("1h30m"), seconds(90), size("1.5g"), size(10)) == (5400.0, 90.0, 3 << 29, 10)


def test_a_number_of_tokens_may_have_any_length() -> None:
    assert tokens("1" * 400 + "M") == LARGEST
    assert tokens("1.5k") == 1500
