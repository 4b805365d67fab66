"""Provide the real VM as fixtures. If it was up before the tests, it stays up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real_vm.control import RealControl
from tests.real_vm.machine import RealVM


@pytest.fixture(scope="session")
def real_vm() -> Iterator[RealVM]:
    """Give the VM that all tests share, ready for runs."""
    yield from _up(RealVM())


@pytest.fixture
def control(real_vm: RealVM, tmp_path: Path) -> RealControl:
    return RealControl(tmp_path)


def _up(vm: RealVM) -> Iterator[RealVM]:
    was_up = vm.runs()
    vm.up()
    yield vm
    if not was_up:
        vm.down()
