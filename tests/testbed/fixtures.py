"""Provide the bed as pytest fixtures. On a machine that cannot carry a bed they fail and say why; they never skip."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from tests.testbed import cleanup, images, machine
from tests.testbed.engine import Engine, forget_image
from tests.testbed.model import ModelServer
from tests.testbed.place import BedError
from tests.testbed.vm import VM

MODEL_KEY = "sk-test-6f1d0c4b2a9e4d57"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Make the images before the first test begins, because they take longer than a test may."""
    needed = {name for item in session.items if isinstance(item, pytest.Function) for name in item.fixturenames}
    if "bed" in needed and not session.config.option.collectonly and not machine.lacks():
        # Each test that needs the bed reports the problem.
        with contextlib.suppress(BedError):
            images.ensure()
            if "bare_vm" in needed:
                images.ensure_bare()


@pytest.fixture(scope="session")
def bed() -> None:
    """Check that this machine can carry VMs, remove leftovers of killed sessions, and make the images."""
    missing = machine.lacks()
    if missing:
        raise BedError("no test bed here: " + "; ".join(missing))
    cleanup.sweep()
    images.ensure()


@pytest.fixture(scope="session")
def vm(bed: None) -> Iterator[VM]:
    """Give a healthy VM that the process's whole session shares. Leave it as it was; use `fresh_vm` for faults."""
    with VM.up() as shared:
        yield shared


@pytest.fixture
def fresh_vm(vms: Callable[..., VM]) -> VM:
    """Give a VM for this test alone."""
    return vms()


@pytest.fixture
def bare_vm(bed: None) -> Iterator[VM]:
    """Give a VM in the state of a cloud's new VM.

    There is no registry here, so the engine that it will get finds the base image, and the layers of the runner image
    as after an earlier build. It finds no image of that name.
    """
    images.ensure_bare()
    with VM.up(bare=True) as bare:
        forget_image(bare.state / "docker", "pcc-runner")
        yield bare


@pytest.fixture
def vms(bed: None) -> Iterator[Callable[..., VM]]:
    """Give a function that makes VMs for this test, with the arguments of `VM.up`; they end with the test."""
    made: list[VM] = []

    def make(*, images: bool = True, home_mb: int | None = None) -> VM:
        made.append(VM.up(images=images, home_mb=home_mb))
        return made[-1]

    yield make
    for each in made:
        each.down()


@pytest.fixture
def model(vm: VM, model_for: Callable[[VM], ModelServer]) -> ModelServer:
    """Give a scripted model for this test, reachable from here, `vm` and its containers; `model.key` is its key."""
    return model_for(vm)


@pytest.fixture
def model_for() -> Iterator[Callable[[VM], ModelServer]]:
    """Give a function that makes scripted models that a given VM reaches."""
    made: list[ModelServer] = []

    def make(vm: VM) -> ModelServer:
        made.append(ModelServer(vm.host_side, key=MODEL_KEY))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="session")
def local_engine(bed: None) -> Iterator[Engine]:
    """Give a Docker Engine on this machine with the bed's images; its containers use the network "host" or "none"."""
    with Engine.with_images() as engine:
        yield engine
