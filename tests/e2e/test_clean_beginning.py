"""A run begins on a clean VM with enough disk space; else it names the fix."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.control import ROOT, Control, containers, happened, wait_until
from tests.testbed.vm import VM

BOXED = """
containers: {box: {image: "pcc-runner:latest", network: none}}
steps:
  - {id: first, on: vm, run: "ls -A; echo mine >file"}
  - {id: boxed, on: container, container: box, run: "cat file"}
always: [{id: clean, remove: workspace}]
"""
SLEEPS = """
containers: {box: {image: "pcc-runner:latest", network: none}}
steps:
  - {id: first, on: vm, run: "echo old >old-file; (trap '' HUP TERM; sleep 78.5) >/dev/null 2>&1 &"}
  - {id: boxed, on: container, container: box, run: "sleep 79.5"}
"""


def killed(control: Control, run_id: str) -> Path:
    """Kill a run while its container runs; return its record."""
    process, record = control.start(SLEEPS, run_id=run_id)
    wait_until(lambda: control.vm and control.vm.pids("sleep 79.5"))
    process.kill()
    process.communicate()
    return record


def end(record: Path) -> None:
    """Write the end of a run into its record."""
    last = json.loads((record / "events.jsonl").read_text().splitlines()[-1])
    ended = {"outcome": "failed", "status": "failed", "downgraded": False, "seconds": 1.0, "message": ""}
    event = {"seq": last["seq"] + 1, "time": last["time"], "event": "run_ended", **ended}
    with (record / "events.jsonl").open("a") as file:
        file.write(json.dumps(event) + "\n")


def of_runs(vm: VM) -> str:
    return vm.sh(f"ls {vm.root}/.system/run-workspaces {vm.root}/.system/run-state 2>/dev/null || true").stdout


def test_leftovers_of_a_run_with_the_same_name_are_removed_before_the_first_step(fresh_vm: VM, tmp_path: Path) -> None:
    control = Control(tmp_path, fresh_vm)
    killed(control, "again")
    subprocess.run(["rm", "-rf", str(tmp_path / ".system")], check=True)
    fresh_vm.sh("rm -rf /home/project/.system/lease")
    ran = control.run(BOXED, run_id="again")
    assert ran.code == 0, ran.stdout
    assert ran.log("first") == ""
    assert ran.log("boxed") == "mine\n"
    assert fresh_vm.pids("sleep 78.5") == []


def workspaces(vm: VM) -> list[str]:
    return vm.sh(f"ls {vm.root}/.system/run-workspaces").stdout.split()


@pytest.mark.parametrize("run_as", [False, True])
def test_the_next_run_and_gc_keep_changes_that_exist_nowhere_else(fresh_vm: VM, tmp_path: Path, run_as: bool) -> None:
    control = Control(tmp_path, fresh_vm, run_as=run_as)
    (control.workspace / "app.txt").write_text("broken\n")
    work = """
        steps:
          - {id: up, upload: workspace}
          - {id: agent, on: vm, run: "echo fixed >>app.txt"}
    """
    change = "      - {id: change, diff: diff.patch}\n"
    ran = control.run(work, run_id="only")
    assert ran.code == 0, ran.stdout + ran.stderr
    ran = control.run(work.rstrip() + "\n    " + change, run_id="recorded")
    assert ran.code == 0, ran.stdout + ran.stderr
    assert workspaces(fresh_vm) == ["only", "recorded"]
    assert control.run(BOXED).code == 0
    done = control.do("gc", "--older-than", "0s", "--project", str(control.project_file()))
    assert done.returncode == 0, done.stdout
    assert "changes that were not brought back" in done.stdout
    assert workspaces(fresh_vm) == ["only"], "what a diff has is not kept"
    assert "fixed" in fresh_vm.sh(f"cat $(find {fresh_vm.root}/.system/run-workspaces/only -name app.txt)").stdout
    # A run of the same name on another host, or without the record, does not remove it either.
    subprocess.run(["rm", "-rf", str(tmp_path / ".system")], check=True)
    ran = control.run("steps: [{id: up, upload: workspace}, {id: gone, remove: workspace}]", run_id="only")
    assert ran.code == 0, ran.stdout
    (kept,) = workspaces(fresh_vm)
    assert kept.startswith("only.kept-")
    assert f"it is now {fresh_vm.root}/.system/run-workspaces/{kept}" in ran.stdout
    assert "fixed" in fresh_vm.sh(f"cat $(find {fresh_vm.root}/.system/run-workspaces/{kept} -name app.txt)").stdout
    assert control.do("gc", "--older-than", "0s", "--project", str(control.project_file())).returncode == 0
    assert workspaces(fresh_vm) == [kept]
    done = control.do("gc", "--discard", kept, "--project", str(control.project_file()))
    assert done.returncode == 0, done.stdout
    assert workspaces(fresh_vm) == []
    done = control.do("gc", "--discard", "nothing", "--project", str(control.project_file()))
    assert (done.returncode, "nothing of run nothing" in done.stdout) == (1, True)


def test_the_next_run_removes_leftovers_of_ended_runs(fresh_vm: VM, tmp_path: Path) -> None:
    control = Control(tmp_path, fresh_vm)
    record = killed(control, "over")
    end(record)
    fresh_vm.sh("docker kill $(docker ps -q); pkill -KILL -f 'sleep 7[89].5'; rm -rf /home/project/.system/lease")
    assert "over" in of_runs(fresh_vm)
    ran = control.run(BOXED)
    assert ran.code == 0, ran.stdout
    # The run does not wait for the removal: a short run may end first.
    for _ in range(3):
        if "over" not in of_runs(fresh_vm) and not containers(fresh_vm):
            break
        assert control.run(BOXED).code == 0
    assert "over" not in of_runs(fresh_vm)
    assert containers(fresh_vm) == []


def test_a_full_disk_is_found_before_the_agent_starts_and_the_message_names_gc(
    vms: Callable[..., VM], tmp_path: Path
) -> None:
    vm = vms(home_mb=70)
    control = Control(tmp_path, vm)
    # The leftovers of an earlier run take the most space.
    vm.ssh("d=/home/project/.system/run-workspaces/old; mkdir -p $d; head -c 30000000 /dev/zero >$d/full")
    ran = control.run(BOXED, "--no-fallback")
    assert ran.code == 3
    assert ran.step("boxed")["reason"] == "no_disk_space"
    assert re.search(r"[0-9]+ kB free for \S+, [0-9]+ MB needed", ran.stdout)
    assert re.search(r"; largest: /home/project/.system/run-workspaces \((2[89]|3[01])\.[0-9] MB\)", ran.stdout)
    assert "pccpipe gc" in ran.stdout
    help_ = subprocess.run(
        [sys.executable, "-m", "pccpipe", "gc", "--help"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--dry-run" in help_.stdout


def test_a_lost_lease_stops_the_run_at_its_next_step(fresh_vm: VM, tmp_path: Path) -> None:
    control = Control(tmp_path, fresh_vm)
    pipeline = """
    steps:
      - {id: first, on: vm, run: "sleep 18"}
      - {id: second, on: vm, run: "echo must not run", fallback: {on: local}}
    """

    def take_over(process: subprocess.Popen[str], record: Path) -> None:
        wait_until(lambda: happened(record, "command_started"))
        lease = f"{fresh_vm.root}/.system/lease"
        fresh_vm.sh(
            f"cd {lease} && n=$(ls | sort -n | tail -1) && "
            f'set -- $(readlink $n) && ln -s "{"f" * 32} $2 $3 thief elsewhere" $((n + 1)) && '
            "touch -h -d @$(($(cut -d. -f1 /proc/uptime) + 1)) $((n + 1))"
        )

    ran = control.run(pipeline, meanwhile=take_over)
    assert ran.code == 3, ran.stdout
    assert ran.state["status"] == "fenced"
    assert "taken over from this run: run thief (elsewhere)" in ran.state["message"]
    assert not [step for step in ran.state["steps"] if step["path"] == "second" and step["attempts"]]
    assert not ran.state["downgraded"]


EMPTY = "{id: a, on: vm, run: echo}, {id: b, on: container, container: box, run: echo}"


@pytest.mark.parametrize("steps", ["{id: a, on: vm, run: echo x >file}, {id: clean, remove: workspace}", EMPTY])
def test_a_run_without_an_upload_leaves_no_folder_on_the_vm(control: Control, steps: str) -> None:
    ran = control.run(f"containers: {{box: {{image: 'bb:latest'}}}}\nsteps: [{steps}]")
    assert ran.code == 0
    assert control.vm
    assert ran.record.name not in of_runs(control.vm)


def test_git_on_the_vm_finds_no_repository_around_the_workspace(fresh_vm: VM, tmp_path: Path) -> None:
    fresh_vm.sh(f"su {fresh_vm.user} -c 'cd {fresh_vm.root} && git init -q . && echo one >f && git add f'")
    ran = Control(tmp_path, fresh_vm).run("""
        steps:
          - {id: sync, upload: workspace}
          - id: up
            on: vm
            run: |
              for place in "$PWD" "$PWD/.." "$PCC_WORKSPACE/../.."; do
                cd "$place"
                if git rev-parse --show-toplevel; then exit 9; fi
                if env -i PATH="$PATH" git rm -qf --cached -- ':/f'; then exit 9; fi
              done
              cd "$PCC_WORKSPACE" && git init -q . && git status
    """)
    assert ran.code == 0, ran.stdout
    assert fresh_vm.sh(f"su {fresh_vm.user} -c 'git -C {fresh_vm.root} ls-files'").stdout == "f\n"


def test_the_run_removes_only_its_own_barrier_against_git(fresh_vm: VM, tmp_path: Path) -> None:
    control = Control(tmp_path, fresh_vm)
    ran = control.run("steps: [{id: a, on: vm, run: 'test -d ../../.git'}]")
    assert ran.code == 0, ran.stdout
    fresh_vm.sh(f"! test -e {fresh_vm.root}/.system/.git")
    # A barrier of the user's own stays.
    fresh_vm.sh(f"su {fresh_vm.user} -c 'cd {fresh_vm.root}/.system && git init -q .'")
    assert control.run("steps: [{id: a, on: vm, run: 'true'}]").code == 0
    fresh_vm.sh(f"test -e {fresh_vm.root}/.system/.git/HEAD")
