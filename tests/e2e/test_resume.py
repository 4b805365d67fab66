"""After kill -9 at any moment of a run, `resume` reaches the same end: nothing is lost or done twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.e2e.control import ROOT, Control, Ran, containers, happened, wait_until

LINES = "i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); done; sleep 0.15; echo end"
PIPELINE = f"""
containers: {{box: {{image: "pcc-runner:latest", network: none}}}}
steps:
  - {{id: sync, upload: workspace}}
  - {{id: onvm, on: vm, run: "echo onvm >>count; {LINES}", timeout: 30s}}
  - id: boxed
    on: container
    container: box
    run: |
      echo boxed >>count; {LINES}; echo '{{"ok": true}}' >"$PCC_OUT/result.json"
    result: {{path: builder/iter-1/result.json}}
  - {{id: athome, on: local, run: "echo athome >>count; {LINES}"}}
  - {{id: fails, on: vm, run: "echo fails >>count; exit 3", continue_on_error: true}}
  - {{id: change, diff: diff.patch}}
always:
  - {{id: last, on: vm, run: "echo ${{{{ run.status }}}} >>count; cat count"}}
  - {{id: clean, remove: workspace}}
"""
COMMANDS = ["onvm", "boxed", "athome", "fails", "succeeded"]
LOG = "".join(f"line {number}\n" for number in range(400)) + "end\n"
DRIVER = """
import os, signal, sys
import pccpipe
pipeline, project, workspace, runs_dir, run_id, life = sys.argv[1:]
pipeline, project = pccpipe.load(pipeline), pccpipe.load_project(__import__("pathlib").Path(project))
def die(event):
    if event.seq == int(life):
        os.kill(os.getpid(), signal.SIGKILL)
pccpipe.run(pipeline, run_id=run_id, project=project, workspace=workspace, runs_dir=runs_dir, on_event=die)
"""


def killed_after(control: Control, run_id: str, life: int) -> Path:
    """Begin a run that kills itself after this many events; return its record."""
    argv, record = control.command(PIPELINE, run_id=run_id)
    workspace = control.workspace
    (workspace / "count").write_text("")
    arguments = [argv[4], str(control.folder / "project.yaml"), str(workspace), str(record.parent), run_id, str(life)]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *arguments],
        cwd=control.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    return record


def start_resume(control: Control, record: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pccpipe", "resume", record.name, "--runs-dir", str(record.parent), *more],
        cwd=control.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def resume(control: Control, record: Path, *more: str) -> Ran:
    process = start_resume(control, record, *more)
    try:
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "Traceback" not in stdout + stderr
    return Ran(process.returncode, stdout, stderr, record)


def check(control: Control, ran: Ran) -> None:
    """Check that the run ended as it would have undisturbed."""
    assert ran.code == 0, ran.stdout + ran.stderr
    assert [line[1:] for line in (ran.record / "diff.patch").read_text().splitlines() if line.startswith("+")][1:] == (
        COMMANDS[:-1]
    )
    assert ran.log("last").split() == COMMANDS
    for step in ("onvm", "boxed", "athome"):
        assert ran.log(step) == LOG, step
    assert json.loads((ran.record / "builder/iter-1/result.json").read_text()) == {"ok": True}
    numbers = [event["seq"] for event in ran.events]
    assert numbers == list(range(1, len(numbers) + 1))
    ends = [event["step"] for event in ran.events if event["event"] == "step_ended"]
    assert ends == ["sync", "onvm", "boxed", "athome", "fails", "change", "last", "clean"]
    assert control.vm
    assert containers(control.vm) == []
    left = control.vm.sh(f"ls -d {control.vm.root}/.system/run-*/{ran.record.name} 2>/dev/null || true").stdout
    assert left == ""
    assert control.vm.pids(f"PCCPIPE_STEP={ran.record.name}/") == []


@pytest.fixture(scope="module")
def events_of_a_run(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> int:
    """Return the number of events of an undisturbed run, and check that run too."""
    control = Control(tmp_path_factory.mktemp("whole"), request.getfixturevalue("vm"))
    (control.workspace / "count").write_text("")
    ran = control.run(PIPELINE)
    check(control, ran)
    return len(ran.events)


@pytest.mark.parametrize(("part", "run_as"), [*((part, False) for part in range(4)), (0, True), (2, True)])
def test_a_run_killed_after_any_event_is_resumed_to_the_same_end(
    control: Control, events_of_a_run: int, part: int, run_as: bool
) -> None:
    control.run_as = run_as
    for life in range(1 + part, events_of_a_run, 4):
        record = killed_after(control, f"killed-{life}", life)
        check(control, resume(control, record))


@pytest.mark.parametrize("run_as", [False, True])
def test_a_run_killed_again_and_again_reaches_its_end(control: Control, run_as: bool) -> None:
    control.run_as = run_as
    record = killed_after(control, "often", 2)
    for turn in range(30):
        process = start_resume(control, record)
        try:
            stdout, stderr = process.communicate(timeout=0.9 + 0.1 * turn)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            continue
        # Killed just after its end, it has nothing to resume.
        code = 0 if "has ended: succeeded" in stderr else process.returncode
        check(control, Ran(code, stdout, stderr, record))
        return
    pytest.fail("thirty times did not get it there")


def test_another_host_that_has_the_record_resumes_the_run(control: Control, tmp_path: Path) -> None:
    control.workspace.joinpath("count").write_text("")
    slow = PIPELINE.replace("sleep 0.15", "sleep 2")
    process, record = control.start(slow, run_id="moved")
    wait_until(lambda: happened(record, "command_started"))
    process.kill()
    process.communicate()
    elsewhere = tmp_path / "elsewhere" / "runs" / record.name
    shutil.copytree(record, elsewhere)
    shutil.rmtree(control.folder / ".system")
    (control.folder / "pipeline.yaml").unlink()
    lock = json.loads((elsewhere / "lock").read_text())
    (elsewhere / "lock").write_text(json.dumps({**lock, "host": "another"}))
    ran = resume(control, elsewhere, "--project", str(control.folder / "project.yaml"))
    check(control, ran)


def test_a_run_with_a_living_process_cannot_be_resumed(control: Control) -> None:
    process, record = control.start("steps: [{id: a, run: sleep 3}]")
    wait_until(lambda: happened(record, "command_started"))
    ran = resume(control, record)
    assert ran.code == 2
    assert f"process {process.pid}" in ran.stderr
    assert "pccpipe cancel" in ran.stderr
    process.communicate(timeout=30)
    assert process.returncode == 0
    again = resume(control, record)
    assert again.code == 2
    assert "has ended: succeeded" in again.stderr


def cancel(control: Control, record: Path, *more: str) -> Ran:
    argv: Sequence[str] = ["cancel", record.name, "--runs-dir", str(record.parent), *more]
    done = subprocess.run(
        [sys.executable, "-m", "pccpipe", *argv],
        cwd=control.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return Ran(done.returncode, done.stdout, done.stderr, record)


TREE = """
steps:
  - {id: tree, on: vm, run: "(trap '' TERM; exec setsid sleep 77.5) & sleep 77.5"}
always:
  - {id: tidy, on: vm, run: echo tidied}
  - {id: clean, remove: workspace}
"""


@pytest.mark.parametrize("killed", [False, True])
def test_cancel_ends_all_processes_of_a_run_also_when_pccpipe_was_killed(control: Control, killed: bool) -> None:
    process, record = control.start(TREE)
    assert control.vm
    vm = control.vm
    wait_until(lambda: len(vm.pids("sleep 77.5")) == 2)
    if killed:
        process.kill()
        process.communicate()
    began = time.monotonic()
    done = cancel(control, record)
    assert done.code == 0, done.stderr
    assert time.monotonic() - began < 30
    assert vm.pids("sleep 77.5") == []
    assert done.state["status"] == "cancelled"
    assert done.log("tidy") == "tidied\n"
    if not killed:
        assert process.wait(timeout=20) == 130
    assert "cancelled" in done.stdout
    again = cancel(control, record)
    assert again.code == 2
    assert "has ended" in again.stderr


def test_resume_completes_run_json_of_a_run_that_was_killed_after_its_last_event(control: Control) -> None:
    record = control.run("steps: [{id: a, run: 'true'}]").record
    ended = (record / "run.json").read_bytes()
    behind = json.loads(ended) | {"status": "running", "outcome": None}
    (record / "run.json").write_text(json.dumps(behind))
    ran = resume(control, record)
    assert ran.code == 2
    assert "has ended: succeeded" in ran.stderr
    assert (record / "run.json").read_bytes() == ended


def test_a_run_leaves_nothing_of_a_download_that_was_killed(control: Control) -> None:
    process, record = control.start("steps: [{id: a, run: sleep 60}]")
    wait_until(lambda: happened(record, "command_started"))
    process.kill()
    process.communicate()
    (record / ".artifacts.incoming").mkdir()
    (record / ".artifacts.incoming/half").write_text("half")
    assert cancel(control, record).code == 0
    assert not (record / ".artifacts.incoming").exists()
