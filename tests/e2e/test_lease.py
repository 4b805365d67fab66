"""One run at a time on a VM: the second run waits or is refused, and never falls back for that."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.control import Control, happened, wait_until
from tests.testbed.vm import VM

HOLDS = "steps: [{id: holds, on: vm, run: sleep 8}, {id: clean, remove: workspace}]"
WANTS = "steps: [{id: wants, on: vm, run: echo here, fallback: {on: local}}]\nalways: [{id: clean, remove: workspace}]"


def test_a_second_run_names_the_run_that_has_the_vm_and_does_not_fall_back(control: Control, tmp_path: Path) -> None:
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


def test_a_waiting_run_can_be_cancelled(control: Control, tmp_path: Path) -> None:
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


QUEUED = """
steps:
  - {id: sync, upload: workspace, retry: {attempts: 3, backoff: 1s}, fallback: {on: local}}
  - {id: wants, on: vm, run: echo here, fallback: {on: local}}
always: [{id: clean, remove: workspace}]
"""


def held(vm: VM, folder: Path, seconds: int) -> tuple[subprocess.Popen[str], Control]:
    """A run of another project that has the VM for this long, and a project that waits for it."""
    process, record = Control(folder, vm).start(HOLDS.replace("sleep 8", f"sleep {seconds}"))
    wait_until(lambda: happened(record, "command_started"))
    other = Control(folder / "other", vm)
    other.folder.mkdir()
    return process, other


@pytest.mark.parametrize("seconds", [3, 8])
def test_a_waiting_run_keeps_its_place_when_its_connection_drops(fresh_vm: VM, tmp_path: Path, seconds: int) -> None:
    process, other = held(fresh_vm, tmp_path, 16)

    def drop(_: subprocess.Popen[str], record: Path) -> None:
        wait_until(lambda: happened(record, "run_queued"))
        fresh_vm.refuse()
        fresh_vm.kill_sessions()
        time.sleep(seconds)
        fresh_vm.accept()

    waited = other.run(QUEUED, "--wait", "60s", meanwhile=drop)
    assert waited.code == 0, waited.stdout
    assert waited.step("wants")["had"]["place"] == "vm"
    assert not waited.state["downgraded"]
    assert process.wait(timeout=30) == 0


def test_a_vm_that_is_not_back_after_the_wait_still_belongs_to_the_other_run(fresh_vm: VM, tmp_path: Path) -> None:
    process, other = held(fresh_vm, tmp_path, 10)

    def drop(_: subprocess.Popen[str], record: Path) -> None:
        wait_until(lambda: happened(record, "run_queued"))
        fresh_vm.refuse()
        fresh_vm.kill_sessions()

    waited = other.run(QUEUED, "--wait", "5s", meanwhile=drop)
    fresh_vm.accept()
    assert waited.code == 3, waited.stdout
    assert waited.state["status"] == "vm_busy"
    assert waited.state["steps"] == []
    assert process.wait(timeout=60) == 0


def test_a_vm_that_comes_back_and_has_another_run_fails_no_step(fresh_vm: VM, tmp_path: Path) -> None:
    control = Control(tmp_path, fresh_vm)
    process, record = control.start(HOLDS.replace("sleep 8", "sleep 10"))
    wait_until(lambda: happened(record, "command_started"))
    other = Control(tmp_path / "other", fresh_vm)
    other.folder.mkdir()
    pipeline = """
    steps:
      - {id: first, on: local, run: sleep 2}
      - {id: wants, on: vm, run: echo here, fallback: {on: local}, continue_on_error: true}
      - {id: later, on: local, run: echo never}
    """
    fresh_vm.refuse()

    def come_back(_: subprocess.Popen[str], record: Path) -> None:
        wait_until(lambda: happened(record, "command_started"))
        fresh_vm.accept()

    stopped = other.run(pipeline, meanwhile=come_back)
    assert stopped.code == 3, stopped.stdout
    step = stopped.step("wants")
    assert (step["outcome"], step["reason"]) == ("unavailable", "vm_busy"), stopped.stdout
    assert f"run {record.name}" in step["message"]
    assert stopped.state["stopped"]
    assert process.wait(timeout=30) == 0
    resumed = other.do("resume", stopped.record.name)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert stopped.log("wants") == "here\n"


def test_the_lease_ends_with_the_run(control: Control) -> None:
    assert control.run(WANTS).code == 0
    assert control.run(WANTS).code == 0


def test_an_invalid_wait_is_refused(control: Control) -> None:
    done = control.run(WANTS, "--wait", "soon")
    assert done.code == 2
    assert "--wait" in done.stderr
    assert "10m" in done.stderr or "15m" in done.stderr
