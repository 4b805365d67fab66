"""Provision a cloud's new VM, with a systemd that starts the installed services."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real_vm.control import LIMIT, RealControl, check_nothing_left
from tests.real_vm.machine import RealVM
from tests.testbed.model import ModelServer

pytestmark = [pytest.mark.real_vm, pytest.mark.timeout(3600)]

WORK = """
containers: {agent: {image: "pcc-runner:latest", network: none}}
steps:
  - {id: who, on: vm, run: "id -un"}
  - {id: work, on: container, container: agent, run: "codex --version", isolation: required}
always:
  - {id: clean, remove: workspace}
"""
PROVISION_LIMIT = 2400


@pytest.fixture
def bare_vm() -> Iterator[RealVM]:
    vm = RealVM(bare=True)
    vm.down()
    vm.up()
    yield vm
    vm.down()


def test_a_provisioned_vm_stays_ready_after_a_power_cut(bare_vm: RealVM, tmp_path: Path) -> None:
    with ModelServer(key="sk-test-provision") as model:
        control = RealControl(tmp_path, env={"OPENAI_API_KEY": model.key or ""}, machine=bare_vm)
        arguments = ("--project", str(control.project_file()), "--endpoint", f"{model.url}/v1")
        assert bare_vm.sh("command -v docker rsync git node; ls -d /home/project", check=False).stdout == ""

        done = control.do("provision", *arguments, limit=PROVISION_LIMIT)
        assert done.returncode == 0 or is_slow(done.stdout), done.stdout + done.stderr
        assert "the account pccrun is there" in done.stdout

        bare_vm.cut_power()
        bare_vm.engine = True
        bare_vm.boot()
        control.run_as = True
        control.project_file()
        for _ in range(3):
            looked = control.do("doctor", *arguments, limit=LIMIT)
            if not is_slow(looked.stdout):
                break
        assert looked.returncode == 0, looked.stdout + looked.stderr
        ran = control.run(WORK, limit=LIMIT)
        assert ran.code == 0, ran.stdout + ran.stderr
        assert ran.log("who") == f"{bare_vm.run_as}\n"
        assert "codex-cli" in ran.log("work")
        check_nothing_left(bare_vm, ran.record.name)


def is_slow(said: str) -> bool:
    """Return whether the doctor's only problem is that an emulated VM took too long."""
    wrong = [line for line in said.splitlines() if line.startswith("WRONG")]
    return bool(wrong) and all("is not through in" in line or "no answer in" in line for line in wrong)
