"""`git: base`: an agent in a container sees its own changes by git, and cannot write what a later git obeys."""

from __future__ import annotations

import os
import time

import pytest

from tests.e2e.control import Control, wait_until

PIPELINE = """
containers:
  agent: {image: "pcc-runner:latest", network: none}
  root: {extends: agent, user: root}
  reviewer: {extends: agent, workspace: read-only}
steps:
  - {id: before, on: container, container: agent, run: "ls -A; git init -q; touch mine"}
  - id: sync
    upload: {workspace: true, git: base}
  - id: build
    on: container
    container: agent
    run: |
      git status --porcelain; echo clean
      echo more >>a; echo new >b
      git status --porcelain; git diff
  - id: root
    on: container
    container: root
    run: "git status --porcelain"
  - id: attack
    on: container
    container: agent
    run: |
      echo '[core] fsmonitor = touch /tmp/ran' >>.git/config || echo refused
      git config core.fsmonitor 'touch ran' || echo refused
      rm -rf .git || echo refused
      mv .git elsewhere || echo refused
      echo x >.git/HEAD || echo refused
      mkdir .git/hooks || echo refused
  - id: review
    on: container
    container: reviewer
    run: |
      ls -A .git | wc -l; git status 2>&1 || echo none
      git init -q --bare /tmp/shape; git -C /tmp/shape rev-parse --git-dir || echo no repository by its shape
  - {id: vm, on: vm, run: "git status --porcelain; cat .git/config; ls -A .git"}
  - {id: local, on: local, run: "git status --porcelain; ls -A .git; ls"}
  - {id: diff, diff: diff.patch}
  - {id: back, on: container, container: agent, run: "git status --porcelain"}
always:
  - {id: tidy, remove: workspace}
"""
CHANGED = " M a\n?? b\n"


@pytest.fixture(params=["vm", "run_as", "container"])
def control_of(request: pytest.FixtureRequest) -> Control:
    """Each kind of machine that containers run on."""
    if request.param == "container":
        request.getfixturevalue("local_engine")
        control: Control = request.getfixturevalue("local_control")
        control.mode = "container"
        control.env |= {"DOCKER_HOST": request.getfixturevalue("local_engine").url}
        return control
    control = request.getfixturevalue("control")
    control.run_as = request.param == "run_as"
    return control


def test_git_works_for_an_agent_and_its_repository_stays_pccpipes(control_of: Control) -> None:
    (control_of.workspace / "a").write_text("a\n")
    on_vm = '  - {id: vm, on: vm, run: "git status --porcelain; cat .git/config; ls -A .git"}\n'
    ran = control_of.run(PIPELINE if control_of.vm else PIPELINE.replace(on_vm, ""))
    assert ran.code == 0, ran.stdout + ran.stderr
    assert ran.log("build").startswith(f"clean\n{CHANGED}diff --git a/a b/a\n")
    assert "+more" in ran.log("build")
    assert ran.log("root") == CHANGED
    assert ran.log("attack").count("refused") == 6, ran.log("attack") + ran.log("attack", "stderr")
    assert ran.log("review").startswith("0\n")
    assert "none" in ran.log("review")
    assert "no repository by its shape" in ran.log("review")
    for step in ("vm", "local") if control_of.vm else ("local",):
        assert ran.log(step).startswith(CHANGED)
        assert "fsmonitor" not in ran.log(step)
        assert "hooks" not in ran.log(step)
    assert ran.log("back") == CHANGED
    patch = (ran.record / "diff.patch").read_text()
    assert [line.split("/")[-1] for line in patch.splitlines() if line.startswith("diff")] == ["a", "b"]
    assert "refused" not in ran.step("diff")["facts"]


def test_a_resumed_run_still_has_its_repository(control: Control) -> None:
    (control.workspace / "a").write_text("a\n")
    process, record = control.start(
        """
        containers: {agent: {image: "pcc-runner:latest", network: none}}
        steps:
          - {id: sync, upload: {workspace: true, git: base}}
          - {id: wait, on: container, container: agent, run: "echo more >>a; echo begun; sleep 3; git status -s"}
          - {id: later, on: container, container: agent, run: "echo x >.git/x || git status --porcelain"}
        """
    )
    wait_until(lambda: any(b"begun" in log.read_bytes() for log in record.glob("logs/wait*stdout.log")))
    process.kill()
    process.communicate()
    time.sleep(0.1)
    done = control.do("resume", record.name, "--project", str(control.folder / "project.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
    for step in ("wait", "later"):
        (log,) = record.glob(f"logs/{step}*stdout.log")
        assert log.read_text().endswith(" M a\n")
    assert not os.path.lexists(control.workspace / ".git")
