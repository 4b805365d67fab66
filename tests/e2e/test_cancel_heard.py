"""A cancel is heard at once, whatever the run waits for then: a VM that is away, an engine that stands still."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.control import Control, happened, wait_until
from tests.e2e.test_resume import start_resume
from tests.testbed.vm import VM

SOON = 3.0
"""Seconds on a machine that is busy; each of these waits took 5 to 60 s when it was not left alone."""
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
    """When the event came, the first of its kind."""
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
def test_a_step_that_waits_for_its_place_hears_a_cancel(
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


def test_a_run_whose_vm_never_answers_hears_a_cancel(tmp_path: Path, fresh_vm: VM) -> None:
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


@pytest.mark.parametrize("fault", [cut, refuse])
def test_a_resumed_run_that_waits_for_an_absent_vm_hears_a_cancel(
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
