"""A background command on a real VM and on this machine: it serves the next steps, and outlives pccpipe."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.control import ROOT, Control, Ran, happened, wait_until
from tests.e2e.test_resume import DRIVER, cancel, resume

ASK = "rm -f answer; >ask; for i in 1 2 3 4 5 6 7 8 9; do [ -e answer ] && exit 0; sleep 0.1; done; exit 1"
PIPELINE = f"""
steps:
  - id: server
    on: PLACE
    background: true
    run: |
      echo began >>log
      while :; do if [ -e ask ]; then rm ask; date >answer; fi; sleep 0.05; done
    ready: {{run: "{ASK}", every: 100ms, timeout: 30s}}
  - {{id: one, on: PLACE, run: "{ASK}"}}
  - {{id: two, on: PLACE, run: "{ASK}"}}
always:
  - {{id: late, on: PLACE, run: "cat log; rm -f answer; >ask; sleep 0.3; if [ -e answer ]; then echo alive; fi"}}
"""
PLACES = [("vm", False), ("vm", True), ("local", False)]


def killed_after(control: Control, place: str, life: int) -> Path:
    """Begin a run that kills itself after this many events; return its record."""
    argv, record = control.command(PIPELINE.replace("PLACE", place), run_id=f"killed-{life}")
    (control.workspace / "log").unlink(missing_ok=True)
    project, runs = control.folder / "project.yaml", record.parent
    arguments = [argv[4], str(project), str(control.workspace), str(runs), record.name, str(life)]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *arguments],
        cwd=control.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    return record


def check(control: Control, ran: Ran) -> None:
    """Check that the server began once, served both steps, and ended with them."""
    assert ran.code == 0, ran.stdout + ran.stderr
    assert ran.log("late") == "began\n"
    ends = [event["step"] for event in ran.events if event["event"] == "step_ended"]
    assert ends == ["one", "two", "server", "late"]
    assert ran.step("server")["message"] == "ended with its group"
    assert not left(control, ran.record)


def left(control: Control, record: Path) -> list[int]:
    """Return the processes of a run on the VM and on this machine."""
    pattern = f"{record.name}/"
    here = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/environ")
        if f"PCCPIPE_STEP={pattern}".encode() in _environment(path)
    ]
    return [*here, *(control.vm.pids(f"PCCPIPE_STEP={pattern}") if control.vm else [])]


def _environment(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize(("place", "run_as"), PLACES)
def test_a_run_with_a_background_command_killed_after_any_event_is_resumed_to_the_same_end(
    control: Control, place: str, run_as: bool
) -> None:
    control.run_as = run_as
    (control.workspace / "log").unlink(missing_ok=True)
    whole = control.run(PIPELINE.replace("PLACE", place))
    check(control, whole)
    for life in range(1 + PLACES.index((place, run_as)), len(whole.events), 5):
        check(control, resume(control, killed_after(control, place, life)))


@pytest.mark.parametrize("place", ["vm", "local"])
def test_cancel_ends_a_background_command_after_pccpipe_was_killed(control: Control, place: str) -> None:
    text = PIPELINE.replace("PLACE", place).replace("id: one, ", "id: waits, run: sleep 60}\n  - {id: one, ")
    process, record = control.start(text)
    wait_until(lambda: happened(record, '"step":"waits","attempt"'))
    process.kill()
    process.communicate()
    done = cancel(control, record)
    assert done.code == 0, done.stderr
    assert done.step("server")["outcome"] == "cancelled"
    assert not left(control, record)
