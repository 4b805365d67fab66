"""`workspace: own` on real machines: legs side by side, each in its copy, at each place, also after `resume`."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pccpipe.gc.delete import only_copies
from tests.e2e.control import Control, Ran, containers, happened, wait_until
from tests.testbed.vm import VM

PIPELINE = """
containers:
  box: {image: "pcc-runner:latest", network: none}
  root: {extends: box, user: root}
steps:
  - {id: sync, upload: {workspace: true, git: base}}
  - {id: deps, on: PLACE, run: "mkdir node_modules; echo dep >node_modules/dep"}
  - {id: roots, container: root, run: "mkdir locked; echo secret >locked/f; chmod 700 locked"}
  - id: legs
    matrix: {greeting: [hello, ../hi]}
    max_parallel: 2
    workspace: own
    repeat: {max: 1}
    steps:
      - id: change
        on: PLACE
        env: {GREETING: "${{ matrix.greeting }}"}
        run: |
          test ! -e report; echo "$GREETING" >report; echo "$GREETING" >>a; mkfifo pipe; ln -s /etc out
          cat node_modules/dep; git status --porcelain -- a
      - {id: boxed, container: box, run: "cat report; echo boxed >>a; echo x >.git/x || echo refused"}
      - {id: here, on: local, run: "cat a; ls .git/HEAD; echo here >>a"}
      - {id: back, container: box, run: "cat a"}
      - {id: get, download: [report, a]}
      - {id: patch, diff: "${{ 'hello' if matrix.greeting == 'hello' else 'hi' }}.patch"}
      - {id: escape, container: root, run: "ls -d /workspace/../own-workspaces 2>&1 || echo nothing beside it"}
  - {id: same, on: PLACE, run: "cat a; ls"}
  - {id: diff, diff: run.patch}
always:
  - {id: tidy, remove: workspace}
"""


@pytest.fixture(params=["vm", "run_as", "container"])
def control_of(request: pytest.FixtureRequest) -> Control:
    if request.param == "container":
        request.getfixturevalue("local_engine")
        control: Control = request.getfixturevalue("local_control")
        control.mode = "container"
        control.env |= {"DOCKER_HOST": request.getfixturevalue("local_engine").url}
        return control
    control = request.getfixturevalue("control")
    control.run_as = request.param == "run_as"
    return control


def nothing_left(control: Control, record: Path) -> None:
    assert not (record / "own-workspaces").exists()
    if control.vm:
        assert containers(control.vm, record.name) == []
        left = control.vm.sh(f"ls -d {control.vm.root}/.system/run-*/{record.name} 2>/dev/null || true").stdout
        assert left == ""


def test_legs_work_side_by_side_and_leave_what_was_asked_for(control_of: Control) -> None:
    (control_of.workspace / "a").write_text("a\n")
    ran = control_of.run(PIPELINE.replace("PLACE", "vm" if control_of.vm else "local"))
    assert ran.code == 0, ran.stdout + ran.stderr
    names = {"hello": "greeting=hello", "../hi": "greeting=../hi"}
    for greeting, leg in names.items():
        inside = f"legs[{leg}][1]"
        assert ran.log(f"{inside}.change") == "dep\n M a\n"
        assert ran.log(f"{inside}.boxed") == f"{greeting}\nrefused\n"
        assert ran.log(f"{inside}.here").startswith(f"a\n{greeting}\nboxed\n")
        assert ran.log(f"{inside}.back") == f"a\n{greeting}\nboxed\nhere\n"
        assert "nothing beside it" in ran.log(f"{inside}.escape")
        (folder,) = [
            each for each in (ran.record / "artifacts").iterdir() if (each / "report").read_text() == f"{greeting}\n"
        ]
        assert (folder / "a").read_text() == f"a\n{greeting}\nboxed\nhere\n"
        patch = (ran.record / f"{greeting.rpartition('/')[2]}.patch").read_text()
        assert f"+{greeting}\n+boxed\n+here\n" in patch
    assert len(list((ran.record / "artifacts").iterdir())) == 2
    assert ran.log("same").startswith("a\n")
    assert "report" not in ran.log("same")
    assert "boxed" not in (ran.record / "run.patch").read_text()
    made = [event for event in ran.events if event["event"] == "workspace_copied"]
    assert [event["step"].endswith(".change") for event in made] == [True, True]
    nothing_left(control_of, ran.record)


SHORT = """
steps:
  - {id: sync, upload: workspace}
  - id: legs
    matrix: {n: [1, 2]}
    max_parallel: 2
    workspace: own
    on: vm
    run: "echo ${{ matrix.n }} >>count; sleep 0.5; cat count"
  - {id: same, on: vm, run: "cat count"}
always:
  - {id: tidy, remove: workspace}
"""
DRIVER = """
import os, pathlib, signal, sys
import pccpipe
pipeline, project, workspace, runs_dir, run_id, kind, number = sys.argv[1:]
left = int(number)
def die(event):
    global left
    left -= type(event.what).__name__ == kind
    if left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
pccpipe.run(pccpipe.load(pipeline), run_id=run_id, project=pccpipe.load_project(pathlib.Path(project)),
            workspace=workspace, runs_dir=runs_dir, on_event=die)
"""


def resumed(control: Control, record: Path) -> Ran:
    done = control.do("resume", record.name)
    assert "Traceback" not in done.stderr
    return Ran(done.returncode, done.stdout, done.stderr, record)


@pytest.mark.parametrize(
    ("kind", "number"), [("WorkspaceCopied", 1), ("CommandStarted", 2), ("StepEnded", 2), ("StepEnded", 3)]
)
def test_after_a_kill_each_leg_goes_on_in_its_copy_and_no_copy_stays(control: Control, kind: str, number: int) -> None:
    control.run_as = True
    (control.workspace / "count").write_text("0\n")
    argv, record = control.command(SHORT)
    arguments = [argv[4], str(control.folder / "project.yaml"), str(control.workspace), str(record.parent), record.name]
    killed = subprocess.run(
        [sys.executable, "-c", DRIVER, *arguments, kind, str(number)],
        cwd=control.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    ran = resumed(control, record)
    assert ran.code == 0, ran.stdout + ran.stderr
    for n in (1, 2):
        assert ran.log(f"legs[n={n}]") == f"0\n{n}\n"
    assert ran.log("same") == "0\n"
    nothing_left(control, record)


def test_a_leg_cannot_lead_pccpipe_out_of_its_copy(control: Control, vm: VM) -> None:
    """The folder of the copies is the account's own, so its code may replace a copy by a link."""
    control.run_as = True
    (control.workspace / "a").write_text("a\n")
    vm.sh("rm -rf /tmp/precious; mkdir -m 777 /tmp/precious; echo keep >/tmp/precious/f; chmod 666 /tmp/precious/f")
    ran = control.run(
        """
        containers: {box: {image: "pcc-runner:latest", network: none}}
        steps:
          - {id: sync, upload: workspace}
          - id: both
            parallel:
              - id: evil
                workspace: own
                repeat: {max: 1}
                steps:
                  - id: swap
                    on: vm
                    run: 'd=$PWD; cd ..; mv "$d" gone; ln -s /tmp/precious "$d"; ln -s /tmp/precious .both.evil-1.x'
                  - {id: get, download: f, continue_on_error: true}
                  - {id: patch, diff: evil.patch, continue_on_error: true}
                  - {id: boxed, container: box, run: "ls; rm -rf *", continue_on_error: true}
                  - {id: again, on: vm, run: "rm -rf *", continue_on_error: true}
          - {id: same, on: vm, run: "cat a"}
        """
    )
    assert ran.code == 0, ran.stdout + ran.stderr
    assert vm.sh("cat /tmp/precious/f").stdout == "keep\n"
    for step in ("get", "patch", "boxed", "again"):
        assert ran.step(f"both.evil[1].{step}")["outcome"] != "succeeded", step
    assert not (ran.record / "artifacts").exists()
    assert ran.log("same") == "a\n"


def test_a_connection_that_breaks_while_a_copy_is_made_is_no_failure(control: Control, vm: VM) -> None:
    (control.workspace / "a").write_text("a\n")
    slow = '#!/bin/sh\n[ -e /tmp/slowed ] || { touch /tmp/slowed; sleep 30; }\nexec /bin/cp "$@"\n'
    vm.sh(f"rm -f /tmp/slowed; printf %s '{slow}' >/usr/local/bin/cp; chmod 755 /usr/local/bin/cp")

    def cut(_: subprocess.Popen[str], record: Path) -> None:
        wait_until(lambda: vm.sh("test -e /tmp/slowed", check=False).returncode == 0)
        assert vm.kill_sessions()

    try:
        ran = control.run(SHORT.replace("cat count", "cat a"), meanwhile=cut)
    finally:
        vm.sh("rm -f /usr/local/bin/cp /tmp/slowed")
    assert ran.code == 0, ran.stdout + ran.stderr
    assert ran.log("legs[n=1]") == "a\n"
    nothing_left(control, ran.record)


def test_the_work_of_an_agent_that_no_diff_has_stays_in_the_record(control: Control) -> None:
    control.run_as = True
    (control.workspace / "a").write_text("a\n")
    ran = control.run(
        """
        secrets: {OPENAI_API_KEY: {from: env, via: proxy}}
        containers: {box: {image: "pcc-runner:latest", network: none}}
        steps:
          - {id: sync, upload: workspace}
          - id: both
            parallel:
              - id: agent
                workspace: own
                container: box
                secrets: [OPENAI_API_KEY]
                run: echo work >>a; ln -s /etc out
              - {id: test, workspace: own, container: box, run: "echo test >>a"}
        """
    )
    assert ran.code == 0, ran.stdout + ran.stderr
    kept = ran.record / "own-workspaces/both.agent-1/workspace"
    assert (kept / "a").read_text() == "a\nwork\n"
    assert [each.name for each in (ran.record / "own-workspaces").iterdir()] == ["both.agent-1"]
    assert f"both.agent: files that its agent changed exist only in {kept}" in " ".join(ran.state["warnings"])
    assert "some files of its own workspace were refused: 'out'" in " ".join(ran.state["warnings"])
    assert only_copies(ran.record).local == kept


def test_a_cancel_after_a_kill_removes_the_copies(control: Control) -> None:
    control.run_as = True
    (control.workspace / "count").write_text("0\n")
    process, record = control.start(SHORT.replace("sleep 0.5", "sleep 60"))
    wait_until(lambda: happened(record, "command_started"))
    process.kill()
    process.communicate()
    done = control.do("cancel", record.name)
    assert done.returncode == 0, done.stdout + done.stderr
    nothing_left(control, record)


def test_gc_removes_copies_that_no_run_needs(control: Control, vm: VM) -> None:
    control.run_as = True
    system = f"{vm.root}/.system"
    copies = f"{system}/run-copies/old-1/own-workspaces"
    vm.sh(
        f"mkdir -p {copies}/leg-1/ro {copies}/.leg-1.x && echo x >{copies}/leg-1/ro/f && chmod 555 {copies}/leg-1/ro &&"
        f" chown -R {vm.user} {system}/run-copies && chown -R {vm.run_as} {copies} && chmod 711 {system}/run-copies"
    )
    done = control.do("gc", "--older-than", "0s", "--project", str(control.project_file()))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "run-copies/old-1" in done.stdout
    assert "old-1" not in vm.sh(f"ls {system}/run-copies").stdout
