"""An SSH agent, and a connection, for a test."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pccpipe.ssh.connection import Connection
from tests.targets.conftest import vm_spec
from tests.targets.stand import until
from tests.testbed.vm import VM


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start an agent without keys, which the test and its programs find by SSH_AUTH_SOCK."""
    path = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    until(path.exists)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
    yield
    process.terminate()
    process.wait()


@pytest.fixture
def connection(vm: VM) -> Iterator[Connection]:
    made = Connection(vm_spec(vm))
    yield made
    made.close()
