"""A control centre with and without a VM, as fixtures."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.control import Control
from tests.fake_mac import FakeMac
from tests.testbed.vm import VM


@pytest.fixture
def control(tmp_path: Path, vm: VM) -> Control:
    """A control centre whose project's VM is the worker's shared one."""
    return Control(tmp_path, vm)


@pytest.fixture
def local_control(tmp_path: Path) -> Control:
    """A control centre whose project is all local."""
    return Control(tmp_path)


@pytest.fixture
def mac(tmp_path: Path) -> Iterator[FakeMac]:
    """A fake Mac on whose disk the names in `tmp_path/.system` and `tmp_path/workspace` have neither case nor form."""
    with tempfile.TemporaryDirectory(prefix="mac-", dir="/tmp") as folder:
        yield FakeMac.made(Path(folder), tmp_path / ".system", tmp_path / "workspace")


@pytest.fixture
def mac_control(tmp_path: Path, vm: VM, mac: FakeMac) -> Control:
    """A control centre on a fake Mac, whose project's VM is the worker's shared one."""
    return Control(tmp_path, vm, mac=mac)


@pytest.fixture
def local_mac_control(tmp_path: Path, mac: FakeMac) -> Control:
    """A control centre on a fake Mac, whose project is all local."""
    return Control(tmp_path, mac=mac)
