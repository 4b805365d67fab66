"""One run at a time on a VM: who comes second waits or is told, and never runs elsewhere for that."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from tests.e2e.control import Control, happened, wait_until

HOLDS = "steps: [{id: holds, on: vm, run: sleep 4}, {id: clean, remove: workspace}]"
WANTS = "steps: [{id: wants, on: vm, run: echo here, fallback: {on: local}}]\nalways: [{id: clean, remove: workspace}]"


def test_a_second_run_is_told_who_has_the_vm_and_does_not_fall_back(control: Control, tmp_path: Path) -> None:
    process, record = control.start(HOLDS)
    wait_until(lambda: happened(record, "command_started"))
    other = Control(tmp_path / "other", control.vm)
    other.folder.mkdir()
    busy = other.run(WANTS)
    assert busy.code == 3
    assert busy.state["status"] == "vm_busy"
    assert f"run {record.name}" in busy.state["message"]
    assert f"pid {process.pid}" in busy.stdout
    assert "--wait 10m" in busy.stdout
    assert busy.state["steps"] == []
    assert not busy.state["downgraded"]

    began = time.monotonic()
    waited = other.run(WANTS, "--wait", "60s")
    assert waited.code == 0, waited.stdout
    assert waited.log("wants") == "here\n"
    assert waited.step("wants")["had"]["place"] == "vm"
    assert "waiting for the VM" in waited.stdout
    assert time.monotonic() - began > 1
    assert process.wait(timeout=30) == 0


def test_who_waits_can_be_cancelled(control: Control, tmp_path: Path) -> None:
    process, record = control.start(HOLDS)
    wait_until(lambda: happened(record, "command_started"))
    other = Control(tmp_path / "other", control.vm)
    other.folder.mkdir()

    def terminate(waiting: subprocess.Popen[str], record: Path) -> None:
        wait_until(lambda: happened(record, "run_queued"))
        waiting.terminate()

    done = other.run(WANTS, "--wait", "60s", meanwhile=terminate)
    assert done.code == 143
    assert done.state["steps"] == []
    assert process.wait(timeout=30) == 0


def test_the_lease_is_let_go_with_the_run(control: Control) -> None:
    assert control.run(WANTS).code == 0
    assert control.run(WANTS).code == 0


def test_a_wait_that_is_no_duration_is_told(control: Control) -> None:
    done = control.run(WANTS, "--wait", "soon")
    assert done.code == 2
    assert "--wait" in done.stderr
    assert "10m" in done.stderr or "15m" in done.stderr
