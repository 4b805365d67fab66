"""With an sshd that opens one or two sessions at a time, a run works, or its first message names the setting."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.control import Control, Ran
from tests.ssh.test_connection import reconfigure
from tests.testbed.vm import VM


def run(tmp_path: Path, vm: VM, most: int) -> Ran:
    reconfigure(vm, f"MaxSessions {most}")
    control = Control(tmp_path, vm, settings="lost_after: 10s\n")
    return control.run("steps: [{id: unit, on: vm, run: echo ran}]", limit=180)


def test_two_sessions_are_enough_for_a_step(tmp_path: Path, fresh_vm: VM) -> None:
    ran = run(tmp_path, fresh_vm, 2)
    assert ran.code == 0, ran.stdout
    assert ran.log("unit") == "ran\n"


def test_a_run_names_the_setting_that_stops_it(tmp_path: Path, fresh_vm: VM) -> None:
    ran = run(tmp_path, fresh_vm, 1)
    assert ran.code == 3, ran.stdout
    lines = [line for line in ran.stdout.splitlines() if "warning" in line or "unavailable" in line]
    assert "cannot open a session" in lines[0], ran.stdout
    assert "fix: set MaxSessions 10 in the VM's /etc/ssh/sshd_config: a run uses up to 9 sessions" in lines[0]
