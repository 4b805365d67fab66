"""Test steps on a VM with its own kernel, systemd and cgroup v2. CONTRIBUTING.md has the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.control import DEMO
from tests.e2e.test_default_run import KEY, default_run
from tests.real_vm.control import LIMIT, RealControl, check_nothing_left
from tests.real_vm.machine import RealVM
from tests.testbed.model import ModelServer

pytestmark = [pytest.mark.real_vm, pytest.mark.timeout(3600)]

BOTH = """
containers: {box: {image: "bb:latest", network: none}}
steps:
  - {id: sync, upload: workspace}
  - {id: onvm, on: vm, run: "echo onvm >>marks; cat /proc/1/comm"}
  - {id: boxed, on: container, container: box, run: "echo boxed >>marks; cat /proc/self/cgroup"}
  - {id: change, diff: diff.patch}
always:
  - {id: clean, remove: workspace}
"""
TOO_MUCH = """
containers: {box: {image: "bb:latest", network: none, memory: 64m}}
steps:
  - {id: sync, upload: workspace}
  - id: work
    on: container
    container: box
    run: tail /dev/zero
    fallback: {on: local, run: echo never}
always:
  - {id: clean, remove: workspace}
"""


def test_steps_run_on_the_vm_and_in_its_containers(control: RealControl, real_vm: RealVM) -> None:
    ran = control.run(BOTH, limit=LIMIT)
    assert ran.code == 0, ran.stdout + ran.stderr
    assert ran.log("onvm") == "systemd\n"
    assert ran.log("boxed").startswith("0::/")
    assert not ran.state["downgraded"]
    lines = (ran.record / "diff.patch").read_text().splitlines()
    assert [line for line in lines if line.startswith("+") and not line.startswith("+++")] == ["+onvm", "+boxed"]
    check_nothing_left(real_vm, ran.record.name)


@pytest.mark.parametrize("run_as", [False, True], ids=["login", "run_as"])
def test_the_default_pipeline_runs_to_an_approval(real_vm: RealVM, tmp_path: Path, run_as: bool) -> None:
    control = RealControl(tmp_path, env={"OPENAI_API_KEY": KEY}, run_as=run_as)
    with ModelServer(key=KEY, scenario=json.loads((DEMO / "scenario.json").read_text())) as model:
        ran = default_run(control, model, limit=LIMIT)
    assert ran.code == 0, ran.stdout + ran.stderr
    assert (ran.state["outcome"], ran.state["downgraded"]) == ("succeeded", False)
    assert ran.step("iterate[1].test")["outcome"] == "failed"
    assert ran.step("iterate[3].review")["result"]["status"] == "approved"
    had = [attempt["had"] for step in ran.state["steps"] for attempt in step["attempts"]]
    assert [one["place"] for one in had].count("container") == 5
    assert {one["host"] for one in had} == {real_vm.host}
    uid = real_vm.sh(f"id -u {real_vm.run_as if run_as else real_vm.user}").stdout.strip()
    assert {one["user"].split(":")[0] for one in had} == {uid}
    assert "0 failed" in (ran.record / "artifacts/test-results/report.txt").read_text()
    assert not [path for path in ran.record.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    check_nothing_left(real_vm, ran.record.name)


def test_a_container_that_runs_out_of_memory_fails_and_says_so(control: RealControl, real_vm: RealVM) -> None:
    ran = control.run(TOO_MUCH, limit=LIMIT)
    assert ran.code == 1, ran.stdout + ran.stderr
    assert ran.step("work")["outcome"] == "failed"
    assert "memory" in ran.step("work")["message"]
    check_nothing_left(real_vm, ran.record.name)
