"""A control centre with and without a VM, as fixtures."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.control import Control
from tests.testbed.vm import VM


@pytest.fixture
def control(tmp_path: Path, vm: VM) -> Control:
    """A control centre whose project's VM is the worker's shared one."""
    return Control(tmp_path, vm)


@pytest.fixture
def local_control(tmp_path: Path) -> Control:
    """A control centre whose project is all local."""
    return Control(tmp_path)
