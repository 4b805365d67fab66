"""Runs on a VM whose login's start-up files print, read stdin and leave a process, or whose login has no shell."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from pccpipe.outcome import Reason
from tests.e2e.control import ROOT, Control
from tests.ssh.test_connection import reconfigure, refusal
from tests.ssh.test_login import whoami
from tests.targets.conftest import vm_spec
from tests.testbed.vm import VM

PIPELINE = """
steps:
  - {id: upload, upload: workspace}
  - {id: change, on: vm, run: cat app.txt && echo fixed >>app.txt}
  - {id: fetch, diff: diff.patch}
always:
  - {id: clean, remove: workspace}
"""


AGENT = """
steps:
  - {id: upload, upload: workspace}
  - {id: s, on: vm, run: echo hi}
"""
PLAIN = """
steps:
  - {id: s, on: vm, run: echo hi}
"""


@pytest.fixture
def noisy(vm: VM) -> Iterator[VM]:
    text = "read -t 0.2 answer\necho hello from .bashrc\necho and there >&2\nsleep 303 >/dev/null 2>&1 &\n"
    vm.sh("cat >/home/pcc/.bashrc; rm -rf /home/project/.system/run-workspaces", stdin=text)
    yield vm
    vm.sh("rm /home/pcc/.bashrc; pkill -fx 'sleep 303' || true")


def test_start_up_files_do_not_affect_a_run(control: Control, noisy: VM) -> None:
    (control.workspace / "app.txt").write_text("broken\n")
    ran = control.run(PIPELINE)
    assert ran.code == 0, ran.stderr
    assert (ran.log("change"), ran.log("change", "stderr")) == ("broken\n", "")
    assert "+fixed" in (ran.record / "diff.patch").read_text()
    assert noisy.sh("cd /home/project/.system && find run-workspaces run-state -mindepth 1").stdout == ""
    assert noisy.sh("ls -d /commands /lane-* 2>/dev/null || true").stdout == ""


@pytest.mark.parametrize("text", [PLAIN, AGENT])
def test_each_command_quotes_a_login_without_a_shell(
    control: Control, vm: VM, request: pytest.FixtureRequest, text: str
) -> None:
    request.addfinalizer(lambda: vm.sh("usermod -s /bin/bash pcc"))
    vm.sh("usermod -s /usr/sbin/nologin pcc")
    ran = control.run(text)
    words = "gave no shell: This account is currently not available."
    assert ran.code == 3
    assert words in ran.stderr + ran.stdout
    assert "ssh_session_refused" in ran.stderr + ran.stdout
    done = subprocess.run(
        [sys.executable, "-m", "pccpipe", "doctor", "--project", str(control.project_file())],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert words in done.stdout


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("echo only backups here", "gave no shell: only backups here"),
        ("internal-sftp", "gave no shell: This service allows sftp connections only."),
    ],
)
def test_the_message_quotes_a_forced_command(fresh_vm: VM, command: str, words: str) -> None:
    reconfigure(fresh_vm, f"ForceCommand {command}")
    error = refusal(vm_spec(fresh_vm))
    assert error.reason is Reason.SSH_SESSION_REFUSED
    assert words in error.words
    assert "ForceCommand" in error.words + error.hint


def test_a_forced_command_that_runs_the_given_command_does_no_harm(fresh_vm: VM) -> None:
    reconfigure(fresh_vm, 'ForceCommand exec bash -c "$SSH_ORIGINAL_COMMAND"')
    assert whoami(vm_spec(fresh_vm)) == "pcc"
