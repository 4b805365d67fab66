"""Attacks on things on the VM: an image behind its tag, the lease's folder, a container's watchdog."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from pccpipe.machine.provisioned import Provisioned, write_provisioned
from pccpipe.ssh.connection import Connection
from tests.e2e.control import Control, containers, wait_until
from tests.e2e.test_resume import resume
from tests.targets.conftest import vm_spec
from tests.testbed.vm import VM

BOXES = """
containers: {box: {image: "bb:latest", network: none}}
steps:
  - {id: first, on: container, container: box, run: echo one}
  - {id: second, on: container, container: box, run: echo two}
"""
LINK = "cd /home/project/.system/lease; ln -s 'x y 1 r h' 9223372036854775807; touch -h -d @0 9223372036854775807"
ALONE = """
containers: {box: {image: "bb:latest", network: none}}
steps:
  - id: agent
    on: container
    container: box
    timeout: 5s
    run: |
      trap '' TERM HUP
      for path in /proc/[0-9]*; do
        pid=${path#/proc/}
        [ $pid = 1 ] || [ $pid = $$ ] || kill -KILL $pid
      done
      echo ready
      while :; do sleep 1; done
"""
LIMIT = 5 + 1 + 60
"""Seconds: the step's time limit, `lost_after`, and the margin to stop it."""


@pytest.fixture
def provisioned(vm: VM) -> Iterator[Connection]:
    """A VM whose tag had another image at the time of `provision`."""
    connection = Connection(vm_spec(vm))
    write_provisioned(connection, vm.root, Provisioned({"bb:latest": f"sha256:{'0' * 64}"}))
    yield connection
    vm.sh(f"rm {vm.root}/.system/provisioned.json")
    connection.close()


def warnings(events: list[dict[str, object]]) -> list[object]:
    return [event["message"] for event in events if event["event"] == "warned"]


def test_a_run_warns_once_that_the_image_behind_its_tag_changed(
    control: Control, vm: VM, provisioned: Connection
) -> None:
    ran = control.run(BOXES)
    assert ran.code == 0, ran.stdout + ran.stderr
    now = vm.sh("docker inspect -f '{{.Id}}' bb:latest").stdout.strip()
    (warning,) = warnings(ran.events)
    assert warning == (
        "image bb:latest changed since `pccpipe provision`: "
        f"it was 000000000000 and is {now.removeprefix('sha256:')[:12]}; fix: pccpipe provision"
    )
    for step in ("first", "second"):
        assert ran.step(step)["had"]["image_digest"] == now
        assert ran.step(step)["had"]["image_provisioned"] == f"sha256:{'0' * 64}"
    # The same image again is not a change.
    write_provisioned(provisioned, vm.root, Provisioned({"bb:latest": now}))
    ran = control.run(BOXES)
    assert ran.code == 0
    assert warnings(ran.events) == []
    assert ran.step("first")["had"]["image_provisioned"] is None


def test_a_link_in_the_leases_folder_does_not_stop_a_later_run(control: Control, vm: VM) -> None:
    assert control.run(f'steps: [{{id: attack, on: vm, run: "{LINK}"}}]').code == 0
    began = time.monotonic()
    ran = control.run("steps: [{id: next, on: vm, run: echo next}]")
    assert ran.code == 0, ran.stdout + ran.stderr
    assert time.monotonic() - began < 20
    assert "9223372036854775807" not in vm.sh(f"ls {vm.root}/.system/lease").stdout


def test_workspace_code_with_an_account_cannot_write_there(control: Control, vm: VM) -> None:
    control.run_as = True
    ran = control.run(f'steps: [{{id: attack, on: vm, run: "{LINK}"}}]')
    assert ran.code == 1
    assert "9223372036854775807" not in vm.sh(f"ls {vm.root}/.system/lease").stdout


def test_a_container_without_watchdog_and_pccpipe_ends_at_its_deadline(control: Control, vm: VM) -> None:
    control.settings = "lost_after: 1s\n"
    process, record = control.start(ALONE)
    wait_until(lambda: any("ready" in log.read_text() for log in record.glob("logs/*")))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (name,) = containers(vm, record.name)
    time.sleep(LIMIT - 10)
    status = f"docker inspect -f '{{{{.State.Status}}}}' {name}"
    assert vm.sh(status).stdout.strip() == "running"
    # KILL comes half a minute after TERM.
    wait_until(lambda: vm.sh(status).stdout.strip() == "exited", 60, 0.5)
    ran = resume(control, record)
    assert ran.step("agent")["outcome"] == "timed_out"
    assert ran.code == 1
    assert containers(vm, record.name) == []
