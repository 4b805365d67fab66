"""An agent in a container may break its VM: no such damage moves the run to the controller."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pccpipe.docker_api.settings import container_name
from pccpipe.target import Command
from tests.e2e.control import KEY, Control, Ran, happened, wait_until
from tests.testbed.vm import VM

PROOF = "ran-on-the-controller"

# The next step runs the agent's own script, which would read the key from pccpipe's environment.
PIPELINE = """
secrets: {{OPENAI_API_KEY: {{from: env, via: proxy, upstream: "http://127.0.0.1:9/v1"}}}}
containers: {{box: {{image: "bb:latest", network: none}}}}
steps:
  - {{id: sync, upload: workspace}}
  - id: build
    on: container
    container: box
    run: |
      echo 'echo "on $(hostname)" >>{proof}; tr "\\0" "\\n" </proc/$PPID/environ | grep KEY || true' >run-tests.sh
      {attack}
  - id: test
    on: {place}
    {box}
    run: sh run-tests.sh
    fallback: {{on: local}}
always:
  - {{id: clean, remove: workspace, continue_on_error: true}}
"""


def attacked(proof: Path, attack: str = "true", place: str = "vm") -> str:
    box = "container: box" if place == "container" else ""
    return PIPELINE.format(proof=proof, attack=attack, place=place, box=box)


@pytest.fixture
def proof(tmp_path: Path) -> Path:
    return tmp_path / PROOF


def test_an_agent_that_fills_the_disk_ends_the_run_on_the_vm(
    tmp_path: Path, vms: Callable[..., VM], proof: Path
) -> None:
    control = Control(tmp_path, vms(home_mb=110))
    fill = "mkdir -p node_modules; dd if=/dev/zero of=node_modules/fill bs=1M 2>/dev/null || true"
    ran = control.run(attacked(proof, fill, "container"))
    assert ran.code == 3, ran.stdout + ran.stderr
    assert not proof.exists()
    assert KEY not in ran.stdout + ran.stderr
    assert ran.step("test")["reason"] == "no_disk_space"
    assert not ran.state["downgraded"]
    assert ran.state["stopped"]
    assert "pccpipe resume" in ran.state["hint"]


def stop_engine(vm: VM) -> None:
    vm.stop_docker()


def lose_image(vm: VM) -> None:
    vm.sh("docker rmi -f bb:latest")


def leave_group(vm: VM) -> None:
    vm.leave_docker_group()
    vm.kill_sessions()


def stop_sshd(vm: VM) -> None:
    vm.refuse()
    vm.kill_sessions()


def when(record_has: str, strike: Callable[[], object]) -> Callable[[object, Path], None]:
    """Call a function during a run, once its record has a text."""

    def act(_: object, record: Path) -> None:
        deadline = time.monotonic() + 30
        while not happened(record, record_has) and time.monotonic() < deadline:
            time.sleep(0.02)
        strike()

    return act


GATE_BEGAN = '"command_started","step":"gate"'
"""Between the builder and the step after it: a local step, whose workspace is already here."""


def struck(control: Control, pipeline: str, fault: Callable[[VM], object], **more: Any) -> Ran:
    """Run a pipeline with a fault between the builder and the step after it."""
    assert control.vm is not None
    vm, go = control.vm, control.folder / "go"
    gate = f"  - {{id: gate, on: local, run: 'while [ ! -e {go} ]; do sleep 0.05; done'}}\n"

    def strike() -> None:
        fault(vm)
        go.touch()

    pipeline = pipeline.replace("  - id: test\n", f"{gate}  - id: test\n")
    return control.run(pipeline, meanwhile=when(GATE_BEGAN, strike), **more)


@pytest.mark.parametrize(
    ("fault", "place"), [(stop_engine, "container"), (lose_image, "container"), (leave_group, "container")]
)
def test_no_step_moves_to_the_controller_whatever_goes_away_after_the_builder(
    tmp_path: Path, fresh_vm: VM, proof: Path, fault: Callable[[VM], None], place: str
) -> None:
    control = Control(tmp_path, fresh_vm, settings="lost_after: 3s\n")
    ran = struck(control, attacked(proof, place=place), fault)
    assert ran.code == 3, ran.stdout + ran.stderr
    assert ran.step("test")["reason"] == "after_untrusted_code"
    assert not proof.exists()
    assert not ran.state["downgraded"]
    assert ran.state["stopped"]
    assert ran.state["exposed"]
    assert "pccpipe resume" in ran.stdout


def test_without_the_fault_the_same_pipeline_succeeds(control: Control, proof: Path) -> None:
    ran = control.run(attacked(proof))
    assert ran.code == 0, ran.stdout + ran.stderr
    assert not proof.exists()


def test_an_absent_sshd_stops_the_run_and_a_resume_finishes_it(tmp_path: Path, fresh_vm: VM, proof: Path) -> None:
    control = Control(tmp_path, fresh_vm, settings="lost_after: 3s\n")
    ran = struck(control, attacked(proof), stop_sshd)
    assert ran.code == 3, ran.stdout + ran.stderr
    assert not proof.exists()
    assert ran.state["stopped"], ran.stdout
    shown = control.do("show", ran.record.name)
    assert "stopped" in shown.stdout
    assert "stopped" in control.do("runs").stdout
    fresh_vm.accept()
    done = control.do("resume", ran.record.name)
    assert done.returncode == 0, done.stdout + done.stderr
    state = ran.state
    assert (state["outcome"], state["stopped"], state["downgraded"]) == ("succeeded", False, False)
    assert [step["path"] for step in state["steps"]] == ["sync", "build", "gate", "test", "clean"]
    # The builder ran once, and no file of the run is left on the VM.
    assert sum('"command_started","step":"build"' in line for line in ran.lines) == 1
    assert fresh_vm.sh(f"ls {fresh_vm.root}/.system/run-workspaces").stdout.split() == []
    assert not proof.exists()


def test_a_stopped_run_keeps_its_workspace_and_leaves_the_vm_to_others(
    tmp_path: Path, fresh_vm: VM, proof: Path
) -> None:
    control = Control(tmp_path, fresh_vm, settings="lost_after: 3s\n")
    fresh_vm.sh("docker tag bb:latest kept:latest")
    ran = struck(control, attacked(proof, place="container"), lose_image)
    run_id = ran.record.name
    assert ran.state["stopped"], ran.stdout + ran.stderr
    project = ("--project", str(control.project_file()))
    cleaned = control.do("gc", *project, "--older-than", "0s")
    assert cleaned.returncode == 0, cleaned.stdout + cleaned.stderr
    assert "stopped" in cleaned.stdout
    assert "not created by pccpipe" not in cleaned.stdout
    kept = fresh_vm.sh(f"cat {fresh_vm.root}/.system/run-workspaces/{run_id}/run-tests.sh").stdout
    assert PROOF in kept
    # Another run has the VM: the stopped run stays stopped, and reports that.
    pipeline = "steps: [{id: hold, on: vm, run: 'sleep 60'}]"
    process, record = control.start(pipeline)
    try:
        wait_until(lambda: happened(record, '"command_started"'))
        busy = control.do("resume", run_id)
        assert busy.returncode == 3, busy.stdout + busy.stderr
        assert ran.state["stopped"]
        assert "stopped" in control.do("runs").stdout
    finally:
        process.terminate()
        process.communicate()
    fresh_vm.sh("docker tag kept:latest bb:latest")
    done = control.do("resume", run_id)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not proof.exists()


def test_a_cancel_of_a_stopped_run_cleans_up(tmp_path: Path, fresh_vm: VM, proof: Path) -> None:
    control = Control(tmp_path, fresh_vm, settings="lost_after: 3s\n")
    ran = struck(control, attacked(proof, place="container"), lose_image)
    assert ran.state["stopped"], ran.stdout + ran.stderr
    done = control.do("cancel", ran.record.name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ran.state["outcome"] == "cancelled", done.stdout + done.stderr
    assert [end["step"] for end in ran.events if end["event"] == "step_ended"][-1] == "clean"
    assert fresh_vm.sh(f"ls {fresh_vm.root}/.system/run-workspaces").stdout.split() == []
    assert not proof.exists()


def test_a_step_waits_for_an_engine_that_restarts_after_the_builder(tmp_path: Path, fresh_vm: VM, proof: Path) -> None:
    control = Control(tmp_path, fresh_vm)

    def restart(vm: VM) -> None:
        vm.stop_docker()
        threading.Timer(10, vm.start_docker).start()

    ran = struck(control, attacked(proof, place="container"), restart)
    assert ran.code == 0, ran.stdout + ran.stderr
    assert not proof.exists()
    assert not ran.state["downgraded"]


def test_a_person_may_accept_the_fallback_of_a_stopped_run(tmp_path: Path, fresh_vm: VM, proof: Path) -> None:
    control = Control(tmp_path, fresh_vm, settings="lost_after: 3s\n")
    ran = struck(control, attacked(proof, place="container"), lose_image)
    assert ran.code == 3
    wrong = control.do("resume", ran.record.name, "--accept-fallback", "tset")
    assert (wrong.returncode, "test" in wrong.stderr, "Traceback" in wrong.stderr) == (2, True, False)
    done = control.do("resume", ran.record.name, "--accept-fallback", "test")
    assert done.returncode == 0, done.stdout + done.stderr
    assert proof.exists(), "a person asked for it"
    assert "allow the fallback" not in done.stdout, "it did"
    assert "accepted:  fallback of test" in control.do("show", ran.record.name).stdout
    assert ran.state["accepted_fallbacks"] == ["test"]
    assert ran.state["downgraded"]


def test_a_vm_step_that_takes_the_next_containers_name_causes_no_fallback(
    tmp_path: Path, fresh_vm: VM, proof: Path
) -> None:
    control = Control(tmp_path, fresh_vm)
    name = container_name("known-id", Command("test-1", "test", 1, ""))
    pipeline = attacked(proof, place="container").replace(
        "  - id: test\n",
        f"  - {{id: take, on: vm, run: 'docker run -d --name {name} bb:latest sleep 300'}}\n  - id: test\n",
    )
    ran = control.run(pipeline, run_id="known-id")
    assert ran.code == 3, ran.stdout + ran.stderr
    assert ran.step("test")["reason"] == "name_taken"
    assert not proof.exists()


def test_a_resume_waits_for_a_command_that_began_before_a_kill_and_runs_it_once(tmp_path: Path, fresh_vm: VM) -> None:
    control = Control(tmp_path, fresh_vm)
    home = f"{fresh_vm.root}/resumed"
    here = tmp_path / "resumed-here"
    pipeline = f"""
    steps:
      - {{id: sync, upload: workspace}}
      - id: s
        on: vm
        run: "echo begun >>{home}; sleep 6; echo ended >>{home}"
        fallback: {{on: local, run: "echo begun >>{here}"}}
    """
    fresh_vm.slow(400)  # the delay of the answer that it has begun

    def begun() -> bool:
        return "begun" in fresh_vm.sh(f"cat {home} 2>/dev/null; :").stdout

    def kill(process: subprocess.Popen[str], _: Path) -> None:
        wait_until(begun, pause=0.02)
        process.kill()

    ran = control.run(pipeline, meanwhile=kill)
    assert not any('"command_started","step":"s"' in line for line in ran.lines), "killed too late: nothing is proved"
    fresh_vm.slow(0)
    stop_sshd(fresh_vm)
    threading.Timer(4, fresh_vm.accept).start()
    done = control.do("resume", ran.record.name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert fresh_vm.sh(f"cat {home}").stdout.split() == ["begun", "ended"]
    assert not here.exists()


def test_later_runs_need_consent_on_a_vm_where_an_agents_code_ran(tmp_path: Path, fresh_vm: VM, proof: Path) -> None:
    control = Control(tmp_path, fresh_vm)
    assert control.run(attacked(proof)).code == 0
    fresh_vm.leave_docker_group()
    later = attacked(proof, place="container").replace("  - id: build\n", "  - id: build\n    if: 'false'\n")
    later = later.replace("run: sh run-tests.sh", "run: 'true'")
    ran = control.run(later)
    assert ran.code == 3, ran.stdout + ran.stderr
    assert ran.step("test")["reason"] == "vm_not_trusted"
    assert "engine_permission_denied" in ran.stdout
    accepted = control.run(later, "--accept-fallback", "test")
    assert accepted.code == 0, accepted.stdout + accepted.stderr
    assert accepted.state["downgraded"]
