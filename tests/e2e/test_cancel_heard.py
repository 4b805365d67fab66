"""A cancel takes effect at once, also while the run waits for an unreachable VM or an engine that hangs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.control import Control, containers, happened, wait_until
from tests.e2e.test_resume import start_resume
from tests.testbed.vm import VM

SOON = 3.0
"""Seconds on a busy machine; each of these waits took 5 to 60 s where a cancel did not interrupt it."""
FIRST = "{id: first, on: local, run: sleep 2}"
WORK = "{id: work, on: vm, run: sleep 60}"
BOXED = "{id: work, on: container, container: box, run: sleep 60}"
SYNC = "{id: work, upload: workspace}"
PIPELINE = """
containers: {{box: {{image: "bb:latest", network: none}}}}
steps:
  - {{id: early, on: vm, run: "true"}}
  - {first}
  - {work}
"""


def ended_at(record: Path, kind: str) -> float:
    """Return the time of the first event of a kind."""
    events = [json.loads(line) for line in (record / "events.jsonl").read_text().splitlines()]
    return next(float(event["time"]) for event in events if event["event"] == kind and event.get("step") != "early")


def cut(vm: VM) -> None:
    vm.cut()


def refuse(vm: VM) -> None:
    vm.refuse()
    vm.kill_sessions()


@pytest.mark.parametrize(
    ("work", "fault"),
    [(WORK, cut), (WORK, refuse), (SYNC, cut), (BOXED, cut), (BOXED, VM.pause_docker)],
    ids=["vm-cut", "vm-refused", "upload-cut", "container-cut", "engine-paused"],
)
def test_a_cancel_ends_a_steps_wait_for_its_place(
    tmp_path: Path, fresh_vm: VM, work: str, fault: Callable[[VM], None]
) -> None:
    control = Control(tmp_path, fresh_vm)
    process, record = control.start(PIPELINE.format(first=FIRST, work=work))
    wait_until(lambda: happened(record, '"command_started","step":"first"'))
    fault(fresh_vm)
    wait_until(lambda: happened(record, '"step_started","step":"work"'))
    time.sleep(1.5)
    asked = time.time()
    process.terminate()
    wait_until(lambda: happened(record, '"step_ended","step":"work"'), limit=60)
    heard = time.time() - asked
    fresh_vm.heal()
    fresh_vm.accept()
    fresh_vm.resume_docker()
    process.communicate(timeout=90)
    assert ended_at(record, "cancelling") - asked < SOON
    assert heard < SOON
    assert process.returncode == 143


def test_a_cancel_ends_a_run_whose_vm_never_answers(tmp_path: Path, fresh_vm: VM) -> None:
    control = Control(tmp_path, fresh_vm)
    fresh_vm.cut()
    process, record = control.start(PIPELINE.format(first=FIRST, work=WORK))
    wait_until(lambda: happened(record, '"run_started"'))
    time.sleep(1)
    asked = time.monotonic()
    process.terminate()
    process.communicate(timeout=60)
    assert time.monotonic() - asked < SOON
    assert process.returncode == 143


LONG = "echo begun; sleep 90"
RUNS = f"{{id: work, on: vm, run: '{LONG}'}}"
RUNS_BOXED = f"{{id: work, on: container, container: box, run: '{LONG}'}}"


@pytest.mark.parametrize(
    ("work", "fault"),
    [(RUNS, cut), (RUNS, refuse), (RUNS_BOXED, cut), (RUNS_BOXED, VM.pause_docker)],
    ids=["vm-cut", "vm-refused", "container-cut", "engine-paused"],
)
def test_a_cancel_abandons_a_command_on_an_unreachable_machine(
    tmp_path: Path, fresh_vm: VM, work: str, fault: Callable[[VM], None]
) -> None:
    control = Control(tmp_path, fresh_vm)
    process, record = control.start(PIPELINE.format(first="{id: first, run: 'true'}", work=work))
    wait_until(lambda: happened(record, '"command_started","step":"work"'))
    time.sleep(1)
    fault(fresh_vm)
    time.sleep(1)
    asked = time.time()
    process.terminate()
    wait_until(lambda: happened(record, '"step_ended","step":"work"'), limit=100)
    heard = time.time() - asked
    fresh_vm.heal()
    fresh_vm.accept()
    fresh_vm.resume_docker()
    stdout, _ = process.communicate(timeout=90)
    assert heard < SOON
    assert process.returncode == 143
    step = next(step for step in json.loads((record / "run.json").read_text())["steps"] if step["path"] == "work")
    assert step["outcome"] == "cancelled"
    assert "it may go on there until its time limit" in step["message"]
    # The machine is back before the end of the run, which stops the command.
    assert fresh_vm.pids("sleep 90") == [], stdout


def test_a_cancel_interrupts_the_start_of_a_container(tmp_path: Path, fresh_vm: VM) -> None:
    control = Control(tmp_path, fresh_vm)
    first = "{id: boxed, on: container, container: box, run: 'true'}\n  - {id: first, on: local, run: sleep 3}"
    process, record = control.start(PIPELINE.format(first=first, work=BOXED))
    wait_until(lambda: happened(record, '"command_started","step":"first"'))
    fresh_vm.pause_docker()
    wait_until(lambda: happened(record, '"may_have_begun","step":"work"'))
    time.sleep(1)
    asked = time.time()
    process.terminate()
    wait_until(lambda: happened(record, '"step_ended","step":"work"'), limit=100)
    heard = time.time() - asked
    fresh_vm.resume_docker()
    process.communicate(timeout=90)
    assert heard < SOON
    assert process.returncode == 143
    assert containers(fresh_vm) == []


@pytest.mark.parametrize("fault", [cut, refuse])
def test_a_cancel_ends_a_resumed_runs_wait_for_its_vm(
    tmp_path: Path, fresh_vm: VM, fault: Callable[[VM], None]
) -> None:
    control = Control(tmp_path, fresh_vm)
    process, record = control.start(PIPELINE.format(first="{id: first, run: 'true'}", work=WORK))
    wait_until(lambda: happened(record, '"command_started","step":"work"'))
    process.kill()
    process.communicate()
    fault(fresh_vm)
    resumed = start_resume(control, record)
    wait_until(lambda: happened(record, '"run_resumed"'))
    time.sleep(3)
    asked = time.time()
    resumed.terminate()
    wait_until(lambda: happened(record, '"step_ended","step":"work"'), limit=60)
    heard = time.time() - asked
    fresh_vm.heal()
    fresh_vm.accept()
    resumed.communicate(timeout=90)
    assert ended_at(record, "cancelling") - asked < SOON
    assert heard < SOON
    assert resumed.returncode == 143
