"""A VM may go away while a step runs on it: the run waits, then counts the step as lost."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.control import Control, happened, wait_until
from tests.testbed.vm import VM

PIPELINE = """
containers: {box: {image: "bb:latest", network: none}}
steps:
  - id: work
    %s
    run: echo ready; sleep 30; echo done
    fallback: {on: local, run: echo never}
  - {id: later, on: local, run: echo never}
always:
  - {id: there, on: vm, run: "true"}
  - {id: here, on: local, run: 'echo ${{ run.status }}'}
  - {id: clean, remove: workspace}
"""


@pytest.mark.parametrize("on", ["on: vm", "{on: container, container: box}"], ids=["vm", "container"])
def test_a_step_whose_vm_stays_away_is_lost_and_local_steps_still_run(tmp_path: Path, fresh_vm: VM, on: str) -> None:
    control = Control(tmp_path, fresh_vm, settings="lost_after: 2s\n")

    def go_away(_: subprocess.Popen[str], record: Path) -> None:
        wait_until(lambda: (record / "logs/work-1.stdout.log").exists() and happened(record, '"command_started"'))
        wait_until(lambda: (record / "logs/work-1.stdout.log").read_text() == "ready\n")
        fresh_vm.refuse()
        fresh_vm.kill_sessions()

    ran = control.run(PIPELINE % on.strip("{}").replace(", ", "\n    "), meanwhile=go_away)
    assert ran.code == 3, ran.stdout + ran.stderr
    step = ran.step("work")
    assert (step["outcome"], step["attempts"][-1]["outcome"]) == ("lost", "lost")
    words = r"the machine did not answer for \d+ s \(lost_after: 2s\), so how its command ended is unknown: .*"
    assert re.fullmatch(rf"{words}; next: pccpipe doctor", step["message"])
    left = f"{fresh_vm.root}/.system/run-workspaces/{ran.state['run_id']} and perhaps a running command are still there"
    assert f"clean: the VM could not be cleaned up: {left}; later: pccpipe gc" in ran.state["warnings"]
    assert ran.log("work") == "ready\n"
    assert ran.log("here") == "lost\n"
    assert ran.step("there")["outcome"] == "unavailable"
    assert not [other for other in ran.state["steps"] if other["path"] == "later"]
    assert not ran.state["downgraded"]


def test_a_link_that_is_cut_for_half_a_minute_fails_no_step(tmp_path: Path, fresh_vm: VM) -> None:
    control = Control(tmp_path, fresh_vm)

    def cut(_: subprocess.Popen[str], record: Path) -> None:
        wait_until(lambda: (record / "logs/work-1.stdout.log").exists() and happened(record, '"command_started"'))
        fresh_vm.cut()
        with pytest.raises(AssertionError):
            wait_until(lambda: happened(record, '"run_ended"'), limit=30)
        fresh_vm.heal()

    ran = control.run(
        """
        steps:
          - id: work
            on: vm
            run: for i in $(seq 1 100); do echo $i; echo $i >> count; sleep 0.3; done; cat count >&2
        """,
        meanwhile=cut,
    )
    assert ran.code == 0, ran.stdout + ran.stderr
    assert ran.log("work") == ran.log("work", "stderr") == "".join(f"{number}\n" for number in range(1, 101))


@pytest.mark.parametrize("on", ["on: vm", "on: container\n    container: box"], ids=["vm", "container"])
def test_a_step_that_ended_in_time_while_its_vm_was_away_has_not_timed_out(
    tmp_path: Path, fresh_vm: VM, on: str
) -> None:
    control = Control(tmp_path, fresh_vm)

    def go_away(_: subprocess.Popen[str], record: Path) -> None:
        wait_until(lambda: happened(record, '"command_started"'))
        wait_until(lambda: (record / "logs/work-1.stdout.log").read_text() == "ready\n")
        fresh_vm.refuse()
        fresh_vm.kill_sessions()
        time.sleep(9)
        fresh_vm.accept()

    ran = control.run(
        f"""
        containers: {{box: {{image: "bb:latest", network: none}}}}
        steps:
          - id: work
            {on.replace("    ", "            ")}
            timeout: 7s
            run: echo ready; sleep 4; echo done
        """,
        meanwhile=go_away,
    )
    assert ran.code == 0, ran.stdout + ran.stderr
    assert ran.log("work") == "ready\ndone\n"
