"""One run on two hosts, or a VM that was taken over: a fenced run does nothing there and loses no work."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.control import Control, Ran, containers, happened, wait_until
from tests.e2e.test_resume import start_resume
from tests.testbed.vm import VM

STEPS = """
steps:
  - {{id: sync, upload: workspace}}
  - {{id: s1, on: vm, run: "echo s1 >>/home/project/u; sleep {first}"}}
  - {{id: s2, {place}, run: "echo s2 >>{mark}; sleep 9"}}
  - {{id: s3, on: vm, run: "cat u >>/home/project/u; echo s3 >>/home/project/u; sleep 3"}}
always:
  - {{id: here, on: local, run: "echo ${{{{ run.status }}}} >>{here}"}}
  - {{id: clean, remove: workspace}}
"""
PLACES = {
    "vm": ("on: vm", "u"),
    "container": ("on: container, container: box", "/workspace/u"),
}
HEAD = 'containers: {box: {image: "bb:latest", network: none}}\n'


def steps(control: Control, place: str, first: int) -> str:
    on, mark = PLACES[place]
    return HEAD + STEPS.format(first=first, place=on, mark=mark, here=control.folder / "here")


def marks(vm: VM) -> list[str]:
    return vm.sh("cat /home/project/u").stdout.split()


def finish(process: subprocess.Popen[str], record: Path) -> Ran:
    try:
        stdout, stderr = process.communicate(timeout=90)
    finally:
        process.kill()
    assert "Traceback" not in stdout + stderr
    return Ran(process.returncode, stdout, stderr, record)


def copied(record: Path, folder: Path) -> Path:
    """Return a copy of the run's record, as another host has it."""
    copy = folder / "runs" / record.name
    shutil.copytree(record, copy, symlinks=True)
    return copy


def begun(control: Control, vm: VM, place: str, first: int = 8) -> tuple[subprocess.Popen[str], Path]:
    vm.sh("rm -f /home/project/u")
    process, record = control.start(steps(control, place, first))
    wait_until(lambda: happened(record, '"command_started","step":"s1"'))
    time.sleep(2)
    return process, record


def check_end(control: Control, vm: VM, lost: Ran, won: Ran) -> None:
    assert won.code == 0, won.stdout + won.stderr
    assert marks(vm) == ["s1", "s2", "s3"]
    assert lost.code == 3, lost.stdout + lost.stderr
    assert lost.state["status"] == "fenced", lost.stdout
    assert lost.state["stopped"]
    assert f"run {won.record.name}" in lost.state["message"]
    assert not lost.state["downgraded"]
    assert containers(vm) == []
    assert vm.pids("PCCPIPE_STEP=") == []
    assert vm.sh(f"ls -d {vm.root}/.system/run-*/{won.record.name} 2>/dev/null || true").stdout == ""
    assert (control.folder / "here").read_text().split() in (["fenced", "succeeded"], ["succeeded", "fenced"])


@pytest.mark.parametrize("place", PLACES)
def test_a_host_that_wakes_after_a_resume_elsewhere_removes_nothing(tmp_path: Path, fresh_vm: VM, place: str) -> None:
    control = Control(tmp_path, fresh_vm)
    process, record = begun(control, fresh_vm, place)
    process.send_signal(signal.SIGSTOP)
    elsewhere = copied(record, tmp_path / "elsewhere")
    other = start_resume(control, elsewhere, "--project", str(control.folder / "project.yaml"))
    wait_until(lambda: happened(elsewhere, '"command_started","step":"s2"'))
    process.send_signal(signal.SIGCONT)
    check_end(control, fresh_vm, finish(process, record), finish(other, elsewhere))


@pytest.mark.parametrize("place", PLACES)
def test_a_fenced_process_leaves_its_step_open_for_the_resume(tmp_path: Path, fresh_vm: VM, place: str) -> None:
    control = Control(tmp_path, fresh_vm)
    process, record = begun(control, fresh_vm, place)
    wait_until(lambda: happened(record, '"command_started","step":"s2"'))
    elsewhere = copied(record, tmp_path / "elsewhere")
    other = start_resume(control, elsewhere, "--project", str(control.folder / "project.yaml"))
    lost = finish(process, record)
    check_end(control, fresh_vm, lost, finish(other, elsewhere))
    step = lost.step("s2")
    assert (step["outcome"], step["attempts"][-1]["outcome"]) == (None, None)


def test_of_two_hosts_that_resume_a_run_the_last_one_gets_it(tmp_path: Path, fresh_vm: VM) -> None:
    control = Control(tmp_path, fresh_vm)
    # Longer than both hosts need to begin: the second would not know a command that the first had finished.
    process, record = begun(control, fresh_vm, "vm", first=30)
    process.kill()
    process.communicate()
    elsewhere = copied(record, tmp_path / "elsewhere")
    first = start_resume(control, record)
    wait_until(lambda: happened(record, '"run_resumed"'))
    time.sleep(2)
    second = start_resume(control, elsewhere, "--project", str(control.folder / "project.yaml"))
    check_end(control, fresh_vm, finish(first, record), finish(second, elsewhere))


def test_a_run_whose_vm_was_taken_over_ends_its_local_steps_and_is_resumed(tmp_path: Path, fresh_vm: VM) -> None:
    control = Control(tmp_path, fresh_vm)
    process, record = begun(control, fresh_vm, "vm")
    process.send_signal(signal.SIGSTOP)
    other = Control(tmp_path / "other", fresh_vm)
    other.folder.mkdir()
    taking = other.run("steps: [{id: s, on: vm, run: sleep 1}]", "--wait", "3m", limit=180)
    assert taking.code == 0, taking.stdout
    process.send_signal(signal.SIGCONT)
    lost = finish(process, record)
    assert lost.code == 3, lost.stdout + lost.stderr
    assert lost.state["status"] == "fenced", lost.stdout
    assert f"run {taking.record.name}" in lost.state["message"]
    assert (tmp_path / "here").read_text() == "fenced\n"
    assert marks(fresh_vm) == ["s1"]
    # If its end did not arrive before the connection broke, the step is open, and the resumed run reads it.
    assert lost.step("s1")["outcome"] in (None, "succeeded")
    won = finish(start_resume(control, record), record)
    assert won.code == 0, won.stdout + won.stderr
    assert marks(fresh_vm) == ["s1", "s2", "s3"]
    assert (tmp_path / "here").read_text() == "fenced\n", "an `always:` step runs once"
    assert fresh_vm.sh(f"ls -d {fresh_vm.root}/.system/run-*/{record.name} 2>/dev/null || true").stdout == ""


MOMENTS = {
    "upload": ("vm", '"step_started","step":"sync"'),
    "command": ("vm", '"step_started","step":"s2"'),
    "container": ("container", '"step_started","step":"s2"'),
    "engine": ("container", '"may_have_begun","step":"s2"'),
    "remove": ("vm", '"step_started","step":"clean"'),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_suspended_run_does_nothing_on_a_vm_that_was_taken_over(tmp_path: Path, fresh_vm: VM, moment: str) -> None:
    place, event = MOMENTS[moment]
    control = Control(tmp_path, fresh_vm)
    for number in range(2000):
        (control.workspace / f"file-{number}").write_text("text\n" * 200)
    fresh_vm.sh("rm -f /home/project/u")
    process, record = control.start(steps(control, place, first=1))
    wait_until(lambda: happened(record, event), pause=0.002)
    process.send_signal(signal.SIGSTOP)
    elsewhere = copied(record, tmp_path / "elsewhere")
    gates = f"ls {fresh_vm.root}/.system/gates"
    before = fresh_vm.sh(gates).stdout
    other = start_resume(control, elsewhere, "--project", str(control.folder / "project.yaml"))
    wait_until(lambda: fresh_vm.sh(gates, check=False).stdout not in ("", before))
    process.send_signal(signal.SIGCONT)
    lost, won = finish(process, record), finish(other, elsewhere)
    assert won.code == 0, won.stdout + won.stderr
    assert marks(fresh_vm) == ["s1", "s2", "s3"]
    assert (lost.code, lost.state["status"]) == (3, "fenced"), lost.stdout + lost.stderr
    assert containers(fresh_vm) == []
    assert fresh_vm.pids("PCCPIPE_STEP=") == []
    assert fresh_vm.sh(f"ls -d {fresh_vm.root}/.system/run-*/{record.name} 2>/dev/null || true").stdout == ""
    # Each host ran its own local step, unless the step was over before the record was copied.
    assert len((control.folder / "here").read_text().split()) == (1 if moment == "remove" else 2)
