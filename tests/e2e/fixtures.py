"""Fixtures: control centres with and without a VM."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.control import Control
from tests.fake_mac import FakeMac
from tests.testbed.vm import VM


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker("also_on_a_mac") and "controller" in metafunc.fixturenames:
        metafunc.parametrize("controller", ["linux", "mac"], indirect=True)


@pytest.fixture
def controller(request: pytest.FixtureRequest) -> FakeMac | None:
    """The controller that the command runs on; None is this machine. A test with `also_on_a_mac` runs on both."""
    if getattr(request, "param", "linux") == "linux":
        return None
    mac: FakeMac = request.getfixturevalue("mac")
    return mac


@pytest.fixture
def control(tmp_path: Path, vm: VM, controller: FakeMac | None) -> Control:
    """A control centre whose project's VM is the worker's shared one."""
    return Control(tmp_path, vm, mac=controller)


@pytest.fixture
def local_control(tmp_path: Path, controller: FakeMac | None) -> Control:
    """A control centre whose project is all local."""
    return Control(tmp_path, mac=controller)


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
