"""A command that began just before a kill and is not in the record runs once, whether or not its VM is there."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.e2e.control import Control, Ran, happened, wait_until
from tests.e2e.test_resume import start_resume
from tests.testbed.vm import VM

PIPELINE = """
containers: {box: {image: "bb:latest", network: none}}
steps:
  - {id: sync, upload: workspace}
  - id: work
    %s
    run: echo begun >>%s; sleep 5; echo ended >>%s
    fallback: {on: local, run: echo here >>%s}
always:
  - {id: clean, remove: workspace, continue_on_error: true}
"""
PLACES = {
    "vm": ("on: vm", "/home/project/marks"),
    "container": ("on: container\n    container: box", "marks"),
}


def marks(vm: VM, place: str, record: Path) -> str:
    name = "/home/project/marks" if place == "vm" else f"{vm.root}/.system/run-workspaces/{record.name}/marks"
    return vm.sh(f"cat {name}", check=False).stdout


def killed_as_it_begins(control: Control, vm: VM, place: str) -> Path:
    """Kill a run when its command began and its record does not say so yet; return that record."""
    on, name = PLACES[place]
    vm.sh("rm -f /home/project/marks")
    vm.slow(400)
    process, record = control.start(PIPELINE % (on, name, name, control.folder / "here"))
    wait_until(lambda: "begun" in marks(vm, place, record), pause=0.01)
    process.kill()
    process.communicate()
    vm.slow(0)
    assert not happened(record, '"command_started","step":"work"')
    return record


@pytest.mark.parametrize("place", PLACES)
def test_a_resume_waits_for_the_vm_of_a_command_that_may_have_begun(tmp_path: Path, fresh_vm: VM, place: str) -> None:
    control = Control(tmp_path, fresh_vm, settings="lost_after: 60s\n")
    record = killed_as_it_begins(control, fresh_vm, place)
    fresh_vm.refuse()
    fresh_vm.kill_sessions()
    process = start_resume(control, record)
    time.sleep(4)
    seen = marks(fresh_vm, place, record)
    fresh_vm.accept()
    stdout, stderr = process.communicate(timeout=60)
    ran = Ran(process.returncode, stdout, stderr, record)
    assert ran.code == 0, stdout + stderr
    assert seen.split() in (["begun"], ["begun", "ended"])
    if place == "vm":
        assert marks(fresh_vm, place, record).split() == ["begun", "ended"]
    assert ran.step("work")["had"]["place"] == place
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize("place", PLACES)
def test_a_command_that_may_have_begun_is_lost_when_its_vm_stays_away(tmp_path: Path, fresh_vm: VM, place: str) -> None:
    control = Control(tmp_path, fresh_vm, settings="lost_after: 3s\n")
    record = killed_as_it_begins(control, fresh_vm, place)
    fresh_vm.refuse()
    fresh_vm.kill_sessions()
    began = time.monotonic()
    process = start_resume(control, record)
    stdout, stderr = process.communicate(timeout=60)
    ran = Ran(process.returncode, stdout, stderr, record)
    assert ran.code == 3, stdout + stderr
    assert time.monotonic() - began > 3
    assert ran.step("work")["outcome"] == "lost"
    assert not (tmp_path / "here").exists()
    assert not ran.state["downgraded"]


def test_a_resume_waits_for_the_vm_of_an_upload_under_way(tmp_path: Path, fresh_vm: VM) -> None:
    control = Control(tmp_path, fresh_vm)
    (control.workspace / "large").write_bytes(os.urandom(40 << 20))
    fresh_vm.slow(100)
    process, record = control.start(f"""
        steps:
          - {{id: sync, upload: workspace, fallback: {{on: local}}}}
          - {{id: work, on: vm, run: "true", fallback: {{on: local, run: "echo >{tmp_path}/here"}}}}
        always: [{{id: clean, remove: workspace}}]
        """)
    wait_until(lambda: fresh_vm.sh(f"ls {fresh_vm.root}/.system/run-workspaces/{record.name}", check=False).stdout)
    process.kill()
    process.communicate()
    assert not happened(record, '"action_done"')
    fresh_vm.slow(0)
    fresh_vm.refuse()
    fresh_vm.kill_sessions()
    resumed = start_resume(control, record)
    time.sleep(5)
    fresh_vm.accept()
    stdout, stderr = resumed.communicate(timeout=60)
    ran = Ran(resumed.returncode, stdout, stderr, record)
    assert ran.code == 0, stdout + stderr
    assert not ran.state["downgraded"]
    assert ran.step("work")["had"]["place"] == "vm"
    assert not (tmp_path / "here").exists()
