"""The sentence for data that exceeds a limit."""

from __future__ import annotations

import pytest

from pccpipe import limits
from pccpipe.limits import Limit, Unit


@pytest.mark.parametrize(
    ("most", "unit", "figure"),
    [
        (4 << 20, Unit.BYTES, "4 MiB"),
        (2 << 30, Unit.BYTES, "2 GiB"),
        ((1 << 20) + 1024, Unit.BYTES, "1025 KiB"),
        ((1 << 20) + 1, Unit.BYTES, "1,048,577 bytes"),
        (1500, Unit.COUNT, "1,500"),
        (30, Unit.SECONDS, "30 s"),
    ],
)
def test_a_figure_is_exact(most: int, unit: Unit, figure: str) -> None:
    assert Limit("it", most, unit, "a test").figure == figure


def test_an_exceeded_limit_names_the_thing_and_the_fix() -> None:
    limit = Limit("a thing", 5, Unit.COUNT, "a test", change="`things:` of the step")
    assert limit.exceeded() == "a thing exceeds the limit of 5; fix: `things:` of the step"
    assert limit.exceeded("thing 7") == "thing 7 exceeds the limit of 5; fix: `things:` of the step"


def test_every_limit_is_listed_once() -> None:
    named = [each for each in vars(limits).values() if isinstance(each, Limit)]
    assert len(set(limits.ALL)) == len(limits.ALL)
    assert list(limits.SENT_BY) == list(limits.Sender)
    assert set(named) == set(limits.ALL)
