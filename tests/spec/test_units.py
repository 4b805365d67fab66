"""Durations and sizes as people write them, and as nobody does."""

from __future__ import annotations

import pytest

from pccpipe.spec.units import LARGEST, LONGEST, seconds, size

DIGITS = "9" * 400


@pytest.mark.parametrize("text", [f"{DIGITS}d", int(DIGITS), float("1e300")])
def test_a_duration_beyond_all_measure_is_the_longest(text: str | float) -> None:
    assert seconds(text) == LONGEST


@pytest.mark.parametrize("text", [f"{DIGITS}g", DIGITS, int(DIGITS)])
def test_a_size_beyond_all_measure_is_the_largest(text: str | int) -> None:
    assert size(text) == LARGEST


def test_ordinary_ones_are_what_they_say() -> None:
    assert (seconds("1h30m"), seconds(90), size("1.5g"), size(10)) == (5400.0, 90.0, 3 << 29, 10)
