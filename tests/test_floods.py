"""A server that sends without an end costs pccpipe no memory and blocks no other work."""

from __future__ import annotations

import pytest

from benchmarks.hostile import FLOODS
from pccpipe import limits
from tests.stall import measured


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_costs_bounded_memory_and_no_pause(name: str) -> None:
    for _ in range(3):
        longest, memory, said = measured(*FLOODS[name])
        assert not said
        assert memory <= limits.MARGIN
        if longest <= limits.PAUSE:
            return
        # On a busy machine the measuring thread may itself wait for a processor, but not three times in a row.
    pytest.fail(f"{longest:.3f} s")
