"""Services beside real steps: on a VM, by name from containers, by a port from `on: vm`, and after kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.control import ROOT, Control, Ran, containers, happened, wait_until
from tests.e2e.test_resume import DRIVER, cancel, resume

COUNTER = "let n = 0; require('net').createServer(s => s.on('error', () => 0).end('call ' + ++n)).listen(5000)"
PIPELINE = f"""
containers: {{box: {{image: "pcc-runner:latest", network: none}}}}
steps:
  - id: tests
    repeat: {{max: 1}}
    services:
      counter: {{image: "pcc-runner:latest", command: [node, -e, "{COUNTER}"], ports: [5000], capabilities: []}}
    steps:
      - id: outside
        on: vm
        shell: bash
        run: exec 3<>/dev/tcp/${{{{ services.counter.host }}}}/${{{{ services.counter.port }}}}; cat <&3
      - id: inside
        container: box
        env: {{HOST: "${{{{ services.counter.host }}}}"}}
        run: node -e 'require("net").connect(5000, process.env.HOST).pipe(process.stdout)'
"""


def killed_after(control: Control, life: int) -> Path:
    """Begin a run that kills itself after this many events; return its record."""
    argv, record = control.command(PIPELINE, run_id=f"killed-{life}")
    project, runs = control.folder / "project.yaml", record.parent
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, argv[4], project, control.workspace, runs, record.name, str(life)],
        cwd=control.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    return record


def check(control: Control, ran: Ran) -> None:
    """Check that both steps spoke to one and the same service, and that nothing of it is left."""
    assert ran.code == 0, ran.stdout + ran.stderr
    calls = [int(ran.log(f"tests[1].{step}").split()[-1]) for step in ("outside", "inside")]
    assert calls[1] == calls[0] + 1, calls
    (service,) = ran.step("tests")["services"]
    assert (service["ready"], service["running"], service["with_owner"]) == (True, False, True)
    gone(control, ran.record)


def gone(control: Control, record: Path) -> None:
    assert control.vm
    assert containers(control.vm, record.name) == []
    assert control.vm.sh("docker network ls -q --filter label=pccpipe.run").stdout == ""


@pytest.mark.parametrize("run_as", [False, True])
def test_steps_reach_a_service_and_a_killed_run_goes_on_with_it(control: Control, run_as: bool) -> None:
    control.run_as = run_as
    whole = control.run(PIPELINE)
    check(control, whole)
    names = [event["event"] for event in whole.events]
    interesting = [
        names.index("service_started") + 1,
        names.index("service_ready") + 1,
        names.index("command_started") + 1,
        len(names) - 4,
    ]
    for life in interesting[run_as::2]:
        check(control, resume(control, killed_after(control, life)))


def test_cancel_ends_the_services_of_a_killed_run(control: Control) -> None:
    process, record = control.start(PIPELINE.replace("run: exec", "run: sleep 60; exec"))
    wait_until(lambda: happened(record, '"command_started"'))
    process.kill()
    process.communicate()
    done = cancel(control, record)
    assert done.code == 0, done.stderr
    assert done.state["status"] == "cancelled"
    gone(control, record)
