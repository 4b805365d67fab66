"""Test logins that logind ends in the middle of a step."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.e2e.control import Ran, wait_until
from tests.real_vm.control import LIMIT, RealControl, check_nothing_left, doctor
from tests.real_vm.machine import RealVM

pytestmark = [pytest.mark.real_vm, pytest.mark.timeout(3600)]

FILE = "/etc/systemd/logind.conf.d/90-kill.conf"
FIX = "/etc/systemd/logind.conf.d/pccpipe.conf"
STEP = """
containers: {box: {image: "bb:latest", network: none}}
steps:
  - {id: sync, upload: workspace}
  - id: work
    %s
    run: |
      echo began >>marks; echo ready
      until [ -e go ]; do sleep 1; done
      echo done
    fallback: {on: local, run: echo never}
always:
  - {id: last, on: vm, run: cat marks}
  - {id: clean, remove: workspace}
"""
ON_VM = STEP % "on: vm"
IN_BOX = STEP % "on: container\n    container: box"
ENDS = {
    # The effect of a broken connection, with KillUserProcesses=yes.
    "connection": "pkill -KILL -f '[s]shd: pcc'",
    "sessions": "loginctl terminate-user pcc",
}


@pytest.fixture
def killing(real_vm: RealVM) -> Iterator[None]:
    """Give a logind that ends the processes of an ended login."""
    real_vm.sh(f"mkdir -p {FILE.rpartition('/')[0]}; printf '[Login]\\nKillUserProcesses=yes\\n' >{FILE}")
    real_vm.sh("systemctl restart systemd-logind")
    yield
    real_vm.sh(f"rm -f {FILE} {FIX}; systemctl restart systemd-logind")


class StruckRun:
    """A run whose step has begun, and continues until the test lets it end."""

    def __init__(self, control: RealControl, vm: RealVM, pipeline: str) -> None:
        self._vm = vm
        self._control = control
        self._process, self.record = control.start(pipeline)
        wait_until(self._is_ready, LIMIT)

    def _is_ready(self) -> bool:
        file = self.record / "logs/work-1.stdout.log"
        return self._process.poll() is not None or (file.exists() and file.read_text() == "ready\n")

    def end(self) -> Ran:
        """Let the step end, and read how the run ended."""
        workspace = f"{self._vm.root}/.system/run-workspaces/{self.record.name}"
        self._vm.sh(f"touch {workspace}/go")
        try:
            stdout, stderr = self._process.communicate(timeout=LIMIT)
        finally:
            self._process.kill()
            self._process.communicate()
        return Ran(self._process.returncode, stdout, stderr, self.record)

    def resume(self) -> Ran:
        """Let the step end after its pccpipe was killed, and resume the run."""
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()
        self._vm.sh(f"touch {self._vm.root}/.system/run-workspaces/{self.record.name}/go")
        done = self._control.do("resume", self.record.name, limit=LIMIT)
        return Ran(done.returncode, done.stdout, done.stderr, self.record)


def check_lost(ran: Ran, vm: RealVM) -> None:
    assert ran.code == 3, ran.stdout + ran.stderr
    assert ran.step("work")["outcome"] == "lost"
    assert len(ran.step("work")["attempts"]) == 1
    assert ran.log("last") == "began\n"
    assert "Traceback" not in ran.stderr
    check_nothing_left(vm, ran.record.name)


def of_logind(control: RealControl) -> tuple[str, str]:
    """Return the doctor's line about logind and the next one; ask again if an emulated VM was too slow."""
    for _ in range(5):
        said = doctor(control)
        lines = [*said.splitlines(), "", ""]
        at = next((number for number, line in enumerate(lines) if line[9:15] == "logind"), None)
        if at is not None and "no answer" not in lines[at] and "skipped" not in lines[at]:
            return lines[at], lines[at + 1]
    raise AssertionError(said)


@pytest.mark.parametrize("how", ENDS)
def test_a_vm_step_that_logind_ended_is_lost_and_names_the_setting_and_its_fix(
    control: RealControl, real_vm: RealVM, killing: None, how: str
) -> None:
    struck = StruckRun(control, real_vm, ON_VM)
    real_vm.sh(ENDS[how])
    ran = struck.end()
    check_lost(ran, real_vm)
    assert "KillUserProcesses=yes" in ran.step("work")["message"]
    assert "KillExcludeUsers=root pcc" in ran.stdout + ran.stderr


@pytest.mark.parametrize("how", ENDS)
def test_a_container_step_continues_whatever_logind_ends(
    control: RealControl, real_vm: RealVM, killing: None, how: str
) -> None:
    struck = StruckRun(control, real_vm, IN_BOX)
    real_vm.sh(ENDS[how])
    ran = struck.end()
    assert ran.code == 0, ran.stdout + ran.stderr
    assert ran.log("work") == "ready\ndone\n"
    assert ran.log("last") == "began\n"
    check_nothing_left(real_vm, ran.record.name)


def test_with_the_doctors_fix_a_vm_step_outlives_its_connection(
    control: RealControl, real_vm: RealVM, killing: None
) -> None:
    said, fix = of_logind(control)
    assert "KillUserProcesses=yes" in said
    real_vm.sh(fix[fix.index("printf") :].replace("sudo ", ""))
    assert "what a login leaves goes on after it" in of_logind(control)[0]

    struck = StruckRun(control, real_vm, ON_VM)
    real_vm.sh(ENDS["connection"])
    ran = struck.end()
    assert ran.code == 0, ran.stdout + ran.stderr
    assert ran.log("work") == "ready\ndone\n"
    assert ran.log("last") == "began\n"


def test_as_debian_sets_logind_a_vm_step_outlives_its_pccpipe_and_its_connection(
    control: RealControl, real_vm: RealVM
) -> None:
    struck = StruckRun(control, real_vm, ON_VM)
    real_vm.sh(ENDS["connection"])
    ran = struck.resume()
    assert ran.code == 0, ran.stdout + ran.stderr
    assert ran.log("work") == "ready\ndone\n"
    assert ran.log("last") == "began\n"
    check_nothing_left(real_vm, ran.record.name)


def test_sessions_that_an_administrator_ended_make_a_vm_step_lost(control: RealControl, real_vm: RealVM) -> None:
    struck = StruckRun(control, real_vm, ON_VM)
    real_vm.sh(ENDS["sessions"])
    ran = struck.end()
    check_lost(ran, real_vm)
    assert "supervisor" in ran.step("work")["message"]
    assert "KillUserProcesses" not in ran.step("work")["message"]
