"""A container or a folder that cannot be removed fails no run; a warning names it and the fix."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.e2e.control import Control, Ran, wait_until
from tests.testbed.vm import VM

pytestmark = pytest.mark.also_on_a_mac


def warnings(ran: Ran) -> str:
    return "\n".join(event["message"] for event in ran.events if event["event"] == "warned")


CONTAINER = """
    containers: {box: {image: "bb:latest", network: none}}
    steps:
      - {id: unit, on: container, container: box, run: echo up; sleep 2}
"""


def test_a_container_that_the_engine_cannot_remove(control: Control, vm: VM) -> None:
    def stick(_: subprocess.Popen[str], record: Path) -> None:
        label = f"label=pccpipe.run={record.name}"
        wait_until(lambda: vm.sh(f"docker ps -q --filter {label}").stdout)
        # One of the engine's files for it cannot be removed, not even by root.
        vm.sh(
            f"cd /var/lib/docker/containers/$(docker ps -q --no-trunc --filter {label}); touch stuck; chattr +i stuck"
        )

    ran = control.run(CONTAINER, meanwhile=stick)
    label = f"label=pccpipe.run={ran.record.name}"
    try:
        assert ran.code == 0, ran.stdout
        warned = warnings(ran)
        assert f"{vm.host}: the container pcc-run-" in warned
        assert "could not be removed: unable to remove filesystem" in warned
        assert "fix: docker rm -f " in warned
        assert "could not be removed" in ran.stdout + ran.stderr
    finally:
        vm.sh("chattr -i /var/lib/docker/containers/*/stuck")
        vm.sh(f"docker rm -f $(docker ps -aq --filter {label})")


def test_a_folder_of_another_users(control: Control, vm: VM) -> None:
    pipeline = """
        steps:
          - id: unit
            on: vm
            run: echo up; while [ ! -e go ]; do sleep 0.1; done
    """
    state = f"{vm.root}/.system/run-state"

    def take(_: subprocess.Popen[str], record: Path) -> None:
        wait_until(lambda: vm.sh(f"ls {state}/{record.name}", check=False).returncode == 0)
        vm.sh(f"cd {state}/{record.name}; mkdir -m 700 roots; touch roots/file")
        vm.sh(f"until cd {vm.root}/.system/run-workspaces/{record.name}; do sleep 0.1; done; touch go")

    ran = control.run(pipeline, meanwhile=take)
    assert ran.code == 0, ran.stdout
    folder = f"{state}/{ran.record.name}"
    assert f"{vm.host}: the folder {folder} could not be removed; fix: sudo rm -rf {folder}, there" in warnings(ran)
    vm.sh(f"rm -rf {folder}")


def test_removed_things_are_not_named(control: Control) -> None:
    assert warnings(control.run(CONTAINER)) == ""


DAEMON = "env -i setsid sh -c 'sleep 7541; :' </dev/null >/dev/null 2>&1 & sleep 0.2"


def test_a_daemon_that_a_step_left_is_named(control: Control, vm: VM) -> None:
    before = "env -i setsid sh -c 'sleep 7543; :' </dev/null >/dev/null 2>&1 3>&- &"
    vm.ssh(f"({before}); sleep 3")  # older than the run for certain
    try:
        assert "still running" not in warnings(control.run("steps: [{id: unit, on: vm, run: 'sleep 1'}]"))
        ran = control.run(f"steps: [{{id: unit, on: vm, run: {json.dumps(DAEMON)}}}]")
        assert ran.code == 0, ran.stdout
        warned = warnings(ran)
        (pid,) = vm.pids("^sh -c sleep 7541")
        assert f"still running on {vm.host} after the run" in warned
        assert f"; fix: kill {pid} " in warned
        assert "7543" not in warned, "it is older than the run"
    finally:
        vm.sh("pkill -f 'sleep 754[13]'")
