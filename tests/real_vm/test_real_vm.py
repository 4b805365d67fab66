"""pccpipe on a VM with its own kernel, systemd and cgroup v2. Run by its own command; CONTRIBUTING.md has it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.control import Control, Ran, wait_until
from tests.real_vm.machine import RealVM

pytestmark = [pytest.mark.real_vm, pytest.mark.timeout(1800)]

LIMIT = 600
"""Seconds for one command. Without kvm each round trip takes long."""
BOTH = """
containers: {box: {image: "bb:latest", network: none}}
steps:
  - {id: sync, upload: workspace}
  - {id: onvm, on: vm, run: "echo onvm >>marks; cat /proc/1/comm"}
  - {id: boxed, on: container, container: box, run: "echo boxed >>marks; cat /proc/self/cgroup"}
  - {id: change, diff: diff.patch}
always:
  - {id: clean, remove: workspace}
"""
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
STEPS_CUT = ("both.onvm", "both.boxed")
TOO_MUCH = """
containers: {box: {image: "bb:latest", network: none, memory: 64m}}
steps:
  - {id: sync, upload: workspace}
  - id: work
    on: container
    container: box
    run: tail /dev/zero
    fallback: {on: local, run: echo never}
always:
  - {id: clean, remove: workspace}
"""


class RealControl(Control):
    """A control centre whose project is on the real VM."""

    def project_file(self) -> Path:
        path = self.folder / "project.yaml"
        path.write_text(
            f"id: p\nisolation_mode: vm\n{self.settings}vm:\n  external_ip: {RealVM.host}\n  port: {RealVM().port}\n"
            f"  user: {RealVM.user}\n  key_path: {RealVM.key}\n  known_hosts: {RealVM.known_hosts}\n"
            f"  root: {RealVM.root}\n"
        )
        return path


@pytest.fixture(scope="session")
def real_vm() -> Iterator[RealVM]:
    """The real VM; one that was up stays up."""
    vm = RealVM()
    was_up = vm.runs()
    vm.up()
    yield vm
    if not was_up:
        vm.down()


@pytest.fixture
def control(real_vm: RealVM, tmp_path: Path) -> Control:
    return RealControl(tmp_path)


def check_nothing_left(vm: RealVM, run_id: str) -> None:
    assert vm.sh(f"docker ps -aq --filter label=pccpipe.run={run_id}").stdout == ""
    assert vm.sh(f"ls -d {vm.root}/.system/run-*/{run_id}", check=False).stdout == ""


def test_steps_run_on_the_vm_and_in_its_containers(control: Control, real_vm: RealVM) -> None:
    ran = control.run(BOTH, limit=LIMIT)
    assert ran.code == 0, ran.stdout + ran.stderr
    assert ran.log("onvm") == "systemd\n"
    assert ran.log("boxed").startswith("0::/")
    assert not ran.state["downgraded"]
    lines = (ran.record / "diff.patch").read_text().splitlines()
    assert [line for line in lines if line.startswith("+") and not line.startswith("+++")] == ["+onvm", "+boxed"]
    check_nothing_left(real_vm, ran.record.name)


def test_steps_whose_vm_lost_its_power_are_lost_and_ran_once(control: Control, real_vm: RealVM) -> None:
    process, record = control.start(CUT)
    try:
        for step in STEPS_CUT:
            wait_until(partial(is_ready, record, step), LIMIT)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    real_vm.cut_power()
    real_vm.boot()

    done = control.do("resume", record.name, limit=LIMIT)
    ran = Ran(done.returncode, done.stdout, done.stderr, record)
    assert ran.code == 3, ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
    assert {ran.step(step)["outcome"] for step in STEPS_CUT} == {"lost"}
    assert {len(ran.step(step)["attempts"]) for step in STEPS_CUT} == {1}
    assert ran.log("last") == "onvm\nboxed\n"
    check_nothing_left(real_vm, record.name)


def is_ready(record: Path, step: str) -> bool:
    file = record / f"logs/{step}-1.stdout.log"
    return file.exists() and file.read_text() == "ready\n"


def test_a_container_that_runs_out_of_memory_fails_and_says_so(control: Control, real_vm: RealVM) -> None:
    ran = control.run(TOO_MUCH, limit=LIMIT)
    assert ran.code == 1, ran.stdout + ran.stderr
    assert ran.step("work")["outcome"] == "failed"
    assert "memory" in ran.step("work")["message"]
    check_nothing_left(real_vm, ran.record.name)


def test_doctor_names_a_logind_that_kills_and_a_fix_that_works(control: Control, real_vm: RealVM) -> None:
    file = "/etc/systemd/logind.conf.d/90-kill.conf"
    real_vm.sh(f"mkdir -p {file.rpartition('/')[0]}; printf '[Login]\\nKillUserProcesses=yes\\n' >{file}")
    real_vm.sh("systemctl restart systemd-logind")
    try:
        said = doctor(control)
        assert "KillUserProcesses=yes" in said
        fix = next(line for line in said.splitlines() if "KillExcludeUsers" in line and "printf" in line)
        real_vm.sh(fix[fix.index("printf") :].replace("sudo ", ""))
        assert "KillUserProcesses=yes" not in doctor(control)
    finally:
        real_vm.sh(f"rm -f {file} /etc/systemd/logind.conf.d/pccpipe.conf; systemctl restart systemd-logind")


def doctor(control: Control) -> str:
    done = control.do("doctor", "--project", str(control.project_file()), limit=LIMIT)
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr
