"""pccpipe on a VM with its own kernel, systemd and cgroup v2. Run by its own command; CONTRIBUTING.md has it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.control import Control
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


def test_a_container_that_runs_out_of_memory_fails_and_says_so(control: Control, real_vm: RealVM) -> None:
    ran = control.run(TOO_MUCH, limit=LIMIT)
    assert ran.code == 1, ran.stdout + ran.stderr
    assert ran.step("work")["outcome"] == "failed"
    assert "memory" in ran.step("work")["message"]
    check_nothing_left(real_vm, ran.record.name)
