"""Output without an end: the step ends at its time limit, and neither record nor machine keeps much of it."""

from __future__ import annotations

import json
import os
import re
import subprocess

import pytest

from tests.e2e.control import Control

LIMIT = 1 << 20


@pytest.fixture(params=["vm", "local"])
def place(request: pytest.FixtureRequest) -> Control:
    """A project with a VM, and one that is all local."""
    control: Control = request.getfixturevalue("control" if request.param == "vm" else "local_control")
    return control


def test_a_step_that_floods_ends_at_its_time_limit_with_both_ends_of_its_log(place: Control) -> None:
    argv, record = place.command(
        f"""
        steps:
          - id: flood
            on: vm
            log_limit: {LIMIT}
            timeout: 3s
            run: "trap 'echo last words; exit 1' TERM; echo first words; while :; do yes | head -c 10000000; done"
        """,
    )
    ran = subprocess.run(
        argv, capture_output=True, cwd=place.folder, env={**os.environ, **place.env}, timeout=60, check=False
    )
    state = json.loads((record / "run.json").read_text())
    (step,) = state["steps"]
    assert step["outcome"] == "timed_out", step["message"]
    assert step["seconds"] < 3 + 12
    (attempt,) = step["attempts"]
    assert attempt["log_dropped"] > 10 * LIMIT
    log = record / attempt["stdout"]
    assert LIMIT / 2 < log.stat().st_size < LIMIT + 200
    text = log.read_text()
    assert text.startswith("first words\n")
    assert text.endswith("last words\n")
    assert re.search(r"\n\.\.\. [0-9,]+ bytes( \([0-9,]+ lines\))? left out here by log_limit \.\.\.\n", text)
    assert b"bytes left out by log_limit" in ran.stdout + ran.stderr
    kept = sum(file.stat().st_size for file in record.rglob("*") if file.is_file())
    assert kept < 2 * LIMIT


def test_what_is_far_ahead_of_the_reader_is_not_read(place: Control) -> None:
    run = "yes & yes & yes 0123456789012345678901234567890123456789012345678901234567890123456789"
    argv, record = place.command(
        f'steps: [{{id: flood, on: vm, log_limit: {LIMIT}, timeout: 3s, run: "{run}"}}]',
    )
    subprocess.run(
        argv, capture_output=True, cwd=place.folder, env={**os.environ, **place.env}, timeout=40, check=False
    )
    (step,) = json.loads((record / "run.json").read_text())["steps"]
    assert (step["outcome"], step["seconds"] < 15) == ("timed_out", True), step
    (log,) = record.glob("logs/*stdout.log")
    # Lines are counted only of what was read.
    assert re.search(rb"\n\.\.\. [0-9,]+ bytes left out here", log.read_bytes())
