"""A full local disk fails no step: the run waits for space, or stops as it is and is resumed."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.disk import SmallDisk
from tests.e2e.control import Control, happened, wait_until
from tests.testbed.vm import VM

LINES = 120
PIPELINE = """
containers: {{box: {{image: "bb:latest", network: none}}}}
steps:
  - id: loud
    {where}
    run: |
      echo begun >>marks
      i=0
      while [ $i -lt {lines} ]; do
        echo "line $i {filler}"; i=$((i+1)); sleep 0.1
      done
      echo ended >>marks
always:
  - {{id: last, on: local, run: "echo always >>{always}"}}
  - {{id: marks, on: vm, run: "cat marks"}}
"""
FILLER = "x" * 200
WHOLE = "".join(f"line {number} {FILLER}\n" for number in range(LINES))


def pipeline(folder: Path, place: str) -> str:
    where = {"vm": "on: vm", "container": "on: container\n    container: box"}[place]
    return PIPELINE.format(where=where, lines=LINES, filler=FILLER, always=folder / "always")


def begun(control: Control, disk: SmallDisk, place: str) -> tuple[subprocess.Popen[str], Path]:
    """Begin a run, and fill the disk once its step has written something."""
    process, record = control.start(pipeline(control.folder, place))
    log = record / "logs" / "loud-1.stdout.log"
    wait_until(lambda: log.exists() and "line 5 " in log.read_text())
    disk.fill()
    return process, record


def judge(folder: Path, record: Path) -> None:
    """Check that the step ran once, that its log is complete, and that the run ended."""
    state: dict[str, Any] = json.loads((record / "run.json").read_text())
    assert state["status"] == "succeeded"
    assert [step["path"] for step in state["steps"] if step["outcome"] != "succeeded"] == []
    assert (record / "logs" / "loud-1.stdout.log").read_text() == WHOLE
    assert (record / "logs" / "marks-1.stdout.log").read_text() == "begun\nended\n"
    assert (folder / "always").read_text() == "always\n"


def test_a_run_waits_for_disk_space(tmp_path: Path, small_home: SmallDisk, vm: VM) -> None:
    process, record = begun(Control(tmp_path, vm), small_home, "vm")
    time.sleep(2)
    small_home.unfill()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    judge(tmp_path, record)
    assert "the run waits up to 30 s for space" in out
    assert happened(record, "was full: the run waited")


@pytest.mark.parametrize("place", ["vm", "container"])
def test_without_disk_space_a_run_stops_and_a_resume_follows_its_command(
    tmp_path: Path, small_home: SmallDisk, vm: VM, place: str
) -> None:
    control = Control(tmp_path, vm)
    process, record = begun(control, small_home, place)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 3, out + err
    assert f"no space left on the disk of {record}" in err
    assert f"pccpipe resume {record.name}" in err
    assert "Traceback" not in err
    assert not (tmp_path / "always").exists()
    if place == "vm":  # it waits for half a minute before it asks where the command runs
        refused = control.do("resume", record.name, limit=90)
        assert refused.returncode == 3
        assert "no space left" in refused.stderr
    small_home.unfill()
    assert not happened(record, "run_ended")
    resumed = control.do("resume", record.name, "--project", str(control.project_file()))
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    judge(tmp_path, record)


def test_a_cancel_on_a_full_disk_ends_the_command(tmp_path: Path, small_home: SmallDisk, vm: VM) -> None:
    control = Control(tmp_path, vm)
    steps = 'steps: [{id: loud, on: vm, run: "sleep 66.5 & while :; do seq 500; sleep 0.05; done"}]'
    process, record = control.start(steps)
    wait_until((record / "logs" / "loud-1.stdout.log").exists)
    small_home.fill()
    time.sleep(1)
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - asked < 5
    assert process.returncode == 3
    assert "no space left" in err
    wait_until(lambda: not vm.pids("sleep 66.5"))
    small_home.unfill()
    assert control.do("resume", record.name).returncode == 1
    assert happened(record, '"run_ended","outcome":"failed"')
