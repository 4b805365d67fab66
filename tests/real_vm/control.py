"""Control runs of a project on the real VM."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.control import Control
from tests.real_vm.machine import RealVM

LIMIT = 1800
"""The longest time of one command, in seconds. Without kvm each round trip takes long."""


@dataclass
class RealControl(Control):
    """A controller with a project on the real VM."""

    machine: RealVM = field(default_factory=RealVM)

    def project_file(self) -> Path:
        path = self.folder / "project.yaml"
        vm = self.machine
        path.write_text(
            f"id: p\nisolation_mode: vm\n{self.settings}vm:\n  external_ip: {vm.host}\n  port: {vm.port}\n"
            f"  user: {vm.user}\n  key_path: {vm.key}\n  known_hosts: {vm.known_hosts}\n  root: {vm.root}\n"
            + (f"  run_as: {vm.run_as}\n" if self.run_as else "")
        )
        return path


def check_nothing_left(vm: RealVM, run_id: str) -> None:
    assert vm.sh(f"docker ps -aq --filter label=pccpipe.run={run_id}").stdout == ""
    assert vm.sh(f"ls -d {vm.root}/.system/run-*/{run_id}", check=False).stdout == ""
    assert vm.sh(f"grep -lsa PCCPIPE_STEP={run_id}/ /proc/[0-9]*/environ", check=False).stdout == ""


def doctor(control: Control, *arguments: str) -> str:
    """Return everything that the doctor prints."""
    done = control.do("doctor", "--project", str(control.project_file()), *arguments, limit=LIMIT)
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr
