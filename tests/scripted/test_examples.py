"""The cases of the examples hold on a real VM, with the real agents in real containers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.e2e.control import ROOT, Control

DEFAULT = (
    "the reviewer asks once",
    "the builder does no work",
    "the tokens are used up",
    "pccpipe is killed while the builder works, and resumed",
)
TWO_AGENTS = ("Claude Code asks Codex once", "Claude Code takes over at a limit of Codex")


@pytest.mark.parametrize(("name", "cases"), [("default-run", DEFAULT), ("two-agents", TWO_AGENTS)])
@pytest.mark.timeout(240)
def test_the_cases_of_an_example_hold(control: Control, name: str, cases: tuple[str, ...]) -> None:
    chosen = [word for case in cases for word in ("--case", case)]
    options = ["--project", str(control.project_file()), "--junit", "junit.xml"]
    done = subprocess.run(
        [sys.executable, "-m", "pccpipe", "test", str(ROOT / f"examples/{name}.test.yaml"), *chosen, *options],
        cwd=control.folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=230,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok      ") == len(cases)
    assert not list(control.folder.glob(".system/runs/test-*"))
