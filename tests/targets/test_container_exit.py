"""A container that ended at its limit, by the engine's account. A busy engine records its start late."""

from __future__ import annotations

import pytest

from pccpipe.docker_api.settings import LIMIT_LABEL
from pccpipe.targets.container_exit import reached_limit
from pccpipe.values import Json


def account(began: int, ended: int, limit: str = "40") -> dict[str, Json]:
    """Return the engine's account of a container that it made at second 0."""
    at = "2026-01-01T00:00:{:02}.123456789Z".format
    state: dict[str, Json] = {"StartedAt": at(began), "FinishedAt": at(ended)}
    return {"Created": at(0), "State": state, "Config": {"Labels": {LIMIT_LABEL: limit}}}


@pytest.mark.parametrize(
    ("began", "ended", "code", "over"),
    [
        (1, 41, 143, True),
        (4, 42, 143, True),
        (4, 42, 137, True),
        (4, 42, 0, False),
        (4, 42, 1, False),
        (4, 44, 0, True),
        (1, 30, 143, False),
    ],
)
def test_a_container_reached_its_limit_also_if_the_engine_recorded_its_start_late(
    began: int, ended: int, code: int, over: bool
) -> None:
    assert reached_limit(account(began, ended), code) is over


def test_without_the_engines_account_no_limit_was_reached() -> None:
    assert not reached_limit({}, 143)
    assert not reached_limit(account(1, 41, "soon"), 143)
