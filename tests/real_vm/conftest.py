"""The real VM as fixtures. One that was up before the tests stays up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real_vm.control import RealControl
from tests.real_vm.machine import RealVM


@pytest.fixture(scope="session")
def real_vm() -> Iterator[RealVM]:
    """The VM, fit for runs, that all tests share."""
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
