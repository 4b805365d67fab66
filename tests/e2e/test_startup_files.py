"""A run on a VM whose login has start-up files that print, read stdin and leave a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.control import Control
from tests.testbed.vm import VM

PIPELINE = """
steps:
  - {id: upload, upload: workspace}
  - {id: change, on: vm, run: cat app.txt && echo fixed >>app.txt}
  - {id: fetch, diff: diff.patch}
always:
  - {id: clean, remove: workspace}
"""


@pytest.fixture
def noisy(vm: VM) -> Iterator[VM]:
    text = "read -t 0.2 answer\necho hello from .bashrc\necho and there >&2\nsleep 303 >/dev/null 2>&1 &\n"
    vm.sh("cat >/home/pcc/.bashrc; rm -rf /home/project/.system/run-workspaces", stdin=text)
    yield vm
    vm.sh("rm /home/pcc/.bashrc; pkill -fx 'sleep 303' || true")


def test_a_run_does_not_notice_them(control: Control, noisy: VM) -> None:
    (control.workspace / "app.txt").write_text("broken\n")
    ran = control.run(PIPELINE)
    assert ran.code == 0, ran.stderr
    assert (ran.log("change"), ran.log("change", "stderr")) == ("broken\n", "")
    assert "+fixed" in (ran.record / "diff.patch").read_text()
    assert noisy.sh("cd /home/project/.system && find run-workspaces run-state -mindepth 1").stdout == ""
    assert noisy.sh("ls -d /commands /lane-* 2>/dev/null || true").stdout == ""
