"""Test a VM that loses its power in the middle of a step."""

from __future__ import annotations

import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.control import Ran, wait_until
from tests.real_vm.control import LIMIT, RealControl, check_nothing_left
from tests.real_vm.machine import RealVM

pytestmark = [pytest.mark.real_vm, pytest.mark.timeout(3600)]

CUT = """
containers: {box: {image: "bb:latest", network: none}}
steps:
  - {id: sync, upload: workspace}
  - id: both
    parallel:
      - id: onvm
        on: vm
        run: echo onvm >>onvm; sync; echo ready; sleep 3600; echo done >>onvm
        fallback: {on: local, run: echo never}
      - id: boxed
        on: container
        container: box
        run: echo boxed >>boxed; sync; echo ready; sleep 3600; echo done >>boxed
        fallback: {on: local, run: echo never}
always:
  - {id: last, on: vm, run: cat onvm boxed}
  - {id: clean, remove: workspace}
"""
STEPS = ("both.onvm", "both.boxed")


@pytest.mark.parametrize("killed", [True, False], ids=["pccpipe was killed", "pccpipe was there"])
def test_steps_whose_vm_lost_its_power_are_lost_and_ran_once(
    control: RealControl, real_vm: RealVM, killed: bool
) -> None:
    process, record = control.start(CUT)
    try:
        for step in STEPS:
            wait_until(partial(is_ready, record, step, process), LIMIT)
        if killed:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        real_vm.cut_power()
        real_vm.boot()
        if killed:
            done = control.do("resume", record.name, limit=LIMIT)
            ran = Ran(done.returncode, done.stdout, done.stderr, record)
        else:
            stdout, stderr = process.communicate(timeout=LIMIT)
            ran = Ran(process.returncode, stdout, stderr, record)
    finally:
        process.kill()
        process.communicate()

    assert ran.code == 3, ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
    for step in STEPS:
        assert ran.step(step)["outcome"] == "lost"
        assert len(ran.step(step)["attempts"]) == 1
        assert "restarted" in ran.step(step)["message"]
    assert ran.log("last") == "onvm\nboxed\n"
    check_nothing_left(real_vm, record.name)


def is_ready(record: Path, step: str, process: subprocess.Popen[str]) -> bool:
    assert process.poll() is None, "the run ended before its time"
    file = record / f"logs/{step}-1.stdout.log"
    return file.exists() and file.read_text() == "ready\n"
