"""The record says where a step ran and why it fell back; nothing of the run is left."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pccpipe.docker_api.settings import container_name
from pccpipe.target import Command
from tests.e2e.control import Control, containers, happened, wait_until
from tests.testbed.vm import VM

pytestmark = pytest.mark.also_on_a_mac

STEP = """
containers: {box: {image: "bb:latest", network: none}}
steps:
  - id: work
    on: container
    container: box
    run: echo in the box; sleep ${{ inputs.seconds }}; exit ${{ inputs.code }}
    timeout: ${{ inputs.limit }}
    fallback: {on: local, run: "echo on the host"}
inputs:
  seconds: {type: integer, default: 0}
  code: {type: integer, default: 0}
  limit: {type: integer, default: 60}
"""


def test_the_step_runs_in_a_container_and_the_record_has_its_isolation(control: Control) -> None:
    ran = control.run(STEP)
    assert ran.code == 0, ran.stdout + ran.stderr
    had = ran.step("work")["attempts"][-1]["had"]
    assert (had["place"], had["network"]) == ("container", "none")
    assert had["user"].split(":")[0] not in {"", "0"}
    assert ran.log("work") == "in the box\n"


@pytest.mark.parametrize("code", [1, 125, 126, 127, 137])
def test_an_exit_code_is_the_commands_own(control: Control, code: int) -> None:
    ran = control.run(STEP, "--input", f"code={code}")
    assert ran.code == 1
    step = ran.step("work")
    assert (step["outcome"], step["attempts"][-1]["exit_code"]) == ("failed", code)
    assert not ran.state["downgraded"]
    assert containers_of(control, ran.record) == []


def containers_of(control: Control, record: Path) -> list[str]:
    assert control.vm is not None
    return containers(control.vm, record.name)


def test_a_time_limit_removes_the_container_and_keeps_the_output(control: Control) -> None:
    # The limit counts from the step's beginning, and a busy machine takes seconds to start a container.
    ran = control.run(STEP, "--input", "seconds=60", "--input", "limit=8")
    assert ran.step("work")["outcome"] == "timed_out"
    assert ran.log("work") == "in the box\n"
    assert containers_of(control, ran.record) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_cancel_removes_the_container_and_always_runs(control: Control, number: int, code: int) -> None:
    def cancel(process: subprocess.Popen[str], record: Path) -> None:
        wait_until(lambda: happened(record, '"command_started"'))
        process.send_signal(number)

    pipeline = STEP + "always: [{id: last, on: vm, run: echo cleaned}]\n"
    ran = control.run(pipeline, "--input", "seconds=60", meanwhile=cancel)
    assert ran.code == code, ran.stdout + ran.stderr
    assert ran.step("work")["outcome"] == "cancelled"
    assert ran.log("last") == "cleaned\n"
    assert containers_of(control, ran.record) == []


def stop_engine(vm: VM) -> None:
    vm.stop_docker()  # removes its socket too


def kill_engine(vm: VM) -> None:
    vm.stop_docker("KILL")


def leave_group(vm: VM) -> None:
    vm.leave_docker_group()


def lose_image(vm: VM) -> None:
    vm.sh("docker rmi -f bb:latest")


def refuse_ssh(vm: VM) -> None:
    vm.refuse()


def unplug(vm: VM) -> None:
    vm.unplug()


@pytest.mark.parametrize(
    ("fault", "reason", "words"),
    [
        (stop_engine, "engine_missing", "docker.sock"),
        (kill_engine, "engine_stopped", "refused"),
        (leave_group, "engine_permission_denied", "ermission denied"),
        (lose_image, "image_missing", "No such image"),
        (refuse_ssh, "ssh_refused", "refused"),
        (unplug, "ssh_unreachable", "route"),
    ],
)
def test_a_step_whose_container_is_unavailable_falls_back_and_the_record_says_why(
    tmp_path: Path, fresh_vm: VM, fault: Callable[[VM], None], reason: str, words: str
) -> None:
    control = Control(tmp_path, fresh_vm)
    fault(fresh_vm)
    ran = control.run(STEP, run_id="takename-1")
    assert ran.code == 0, ran.stdout + ran.stderr
    assert ran.log("work") == "on the host\n"
    (downgrade,) = ran.state["downgrades"]
    assert (downgrade["asked"], downgrade["had"], downgrade["reason"]) == ("container", "local", reason)
    assert words in downgrade["words"]
    assert "unknown error" not in downgrade["words"]
    assert ran.state["downgraded"]
    assert downgrade["words"] in ran.stdout
    # Where a fallback is forbidden, the step is unavailable: exit status 3, and the same words.
    strict = control.run(STEP, "--no-fallback", run_id="takename-2")
    assert strict.code == 3
    assert strict.step("work")["reason"] == reason
    assert not strict.step("work")["attempts"][-1].get("exit_code")


def name_of(run_id: str, step: str) -> str:
    return container_name(run_id, Command(f"{step}-1", step, 1, ""))


def test_a_container_with_the_same_name_causes_no_fallback(control: Control, vm: VM) -> None:
    name = name_of("takename-1", "work")
    vm.sh(f"docker run -d --name {name} node:20-slim sleep 300")
    ran = control.run(STEP, run_id="takename-1")
    assert ran.code == 3
    assert ran.step("work")["reason"] == "name_taken"
    assert name in ran.step("work")["words"]
    assert not ran.state["downgraded"]
    vm.sh(f"docker rm -f {name}")


def test_a_matrix_runs_in_containers_and_runs_with_similar_ids_do_not_collide(control: Control) -> None:
    pipeline = """
    containers: {box: {image: "bb:latest", network: none}}
    steps:
      - id: unit
        matrix: {v: ["1.20", "a b", "../x;y", "a-b"]}
        max_parallel: 4
        on: container
        container: box
        run: "echo ${{ matrix.v }}"
    """
    names = set()
    for run_id in ("similar-long-id-1", "similar-long-id-2"):
        ran = control.run(pipeline, run_id=run_id)
        assert ran.code == 0, ran.stdout + ran.stderr
        legs = [step for step in ran.state["steps"] if step["path"].startswith("unit[")]
        assert sorted((ran.record / leg["attempts"][0]["stdout"]).read_text() for leg in legs) == sorted(
            f"{v}\n" for v in ("1.20", "a b", "../x;y", "a-b")
        )
        names |= {leg["attempts"][0]["had"]["container"] for leg in legs}
    assert len(names) == 8


def test_fail_on_downgrade_makes_a_downgraded_success_exit_4(tmp_path: Path, fresh_vm: VM) -> None:
    control = Control(tmp_path, fresh_vm)
    fresh_vm.stop_docker()
    assert control.run(STEP, "--fail-on-downgrade").code == 4


def test_a_dead_leftover_of_pccpipe_with_the_same_name_is_removed(control: Control, vm: VM) -> None:
    name = name_of("leftover-1", "work")
    vm.sh(f"docker run --name {name} --label pccpipe.run=leftover-old bb:latest true")
    ran = control.run(STEP, run_id="leftover-1")
    assert ran.code == 0
    assert not ran.state["downgraded"]
    assert ran.step("work")["attempts"][-1]["had"]["container"] == name


def test_a_builder_that_fell_back_gets_the_vms_newest_files_and_the_vm_gets_its_change(
    tmp_path: Path, fresh_vm: VM
) -> None:
    control = Control(tmp_path, fresh_vm)
    (control.workspace / "a.txt").write_text("one\n")
    fresh_vm.leave_docker_group()
    ran = control.run("""
        containers: {box: {image: "bb:latest"}}
        steps:
          - {id: sync, upload: workspace}
          - {id: before, on: vm, run: echo two >> a.txt}
          - id: build
            on: container
            container: box
            run: echo never
            fallback: {on: local, run: echo three >> a.txt}
          - {id: after, on: vm, run: cat a.txt}
          - {id: changes, diff: diff.patch}
    """)
    assert ran.code == 0, ran.stdout + ran.stderr
    assert ran.log("after") == "one\ntwo\nthree\n"
    assert (control.workspace / "a.txt").read_text() == "one\n"
    assert "+two\n+three\n" in (ran.record / "diff.patch").read_text()
