"""What never ends, from a server of a process of its own, costs pccpipe no memory and holds nobody up."""

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
        # On a busy machine the thread that looks at the clock may itself wait for a processor: that is not seen thrice.
    pytest.fail(f"{longest:.3f} s")
