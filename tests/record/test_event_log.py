"""Events as lines of `logging`: silent by default, with the run's id, no secret in them."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

import pccpipe

TEXT = (
    "version: 1\nname: x\nsecrets: {K: {from: env}}\n"
    "steps:\n  - {id: a, on: local, secrets: [K], run: 'echo $K; exit 3'}\n"
)


def test_a_runs_lines_have_its_id(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "pccpipe")

    def fail(event: pccpipe.Event) -> None:
        raise ValueError("of the caller")

    pccpipe.run(
        pccpipe.load(TEXT),
        run_id="r1",
        runs_dir=tmp_path,
        workspace=tmp_path,
        secrets={"K": "a-secret-of-many-letters"},
        on_event=fail,
    )
    lines = [record for record in caplog.records if record.name == "pccpipe"]
    assert {record.__dict__["run_id"] for record in lines} == {"r1"}
    assert any(record.levelname == "INFO" and "run r1: run_started" in record.message for record in lines)
    assert any(record.levelname == "WARNING" and "run_ended failed" in record.message for record in lines)
    (failure,) = [record for record in lines if record.levelname == "ERROR"]
    assert failure.exc_info
    assert isinstance(failure.exc_info[1], ValueError)
    assert "a-secret" not in caplog.text


@pytest.mark.parametrize("first", ["", "import logging\n"])
def test_nothing_is_written_by_default(tmp_path: Path, first: str) -> None:
    text = "version: 1\\nname: x\\nsteps: [{id: a, on: local, run: exit 3}]"
    run = f"pccpipe.run(pccpipe.load('{text}'), run_id='r1', runs_dir='runs', workspace='.')\n"
    script = f"{first}import pccpipe\n{run}"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
