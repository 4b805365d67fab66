"""The example's cases of the default pipeline hold on a real VM, with the real agents in real containers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.e2e.control import ROOT, Control

CASES = (
    "the reviewer asks once",
    "the builder does no work",
    "the tokens are used up",
    "pccpipe is killed while the builder works, and resumed",
)


@pytest.mark.timeout(240)
def test_the_default_pipeline_passes_its_example(control: Control) -> None:
    chosen = [word for case in CASES for word in ("--case", case)]
    options = ["--project", str(control.project_file()), "--junit", "junit.xml"]
    done = subprocess.run(
        [sys.executable, "-m", "pccpipe", "test", str(ROOT / "examples/default-run.test.yaml"), *chosen, *options],
        cwd=control.folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=230,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok      ") == len(CASES)
    assert not list(control.folder.glob(".system/runs/test-*"))
