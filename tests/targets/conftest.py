from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pccpipe.detached import as_account
from pccpipe.spec.project_model import Vm
from pccpipe.ssh.connection import Connection
from pccpipe.targets.local import LocalTarget
from pccpipe.targets.vm import VmTarget
from tests.targets.shells import shell as shell
from tests.targets.stand import Stand, local_shell
from tests.testbed.vm import VM

MakeStand = Callable[[pytest.FixtureRequest, str], Iterator[Stand]]

KILL_AFTER = 3.0


def local_stand(request: pytest.FixtureRequest, run_id: str) -> Iterator[Stand]:
    # With a space and a quote: no shell may interpret a user's path.
    folder: Path = request.getfixturevalue("tmp_path") / "user's own"
    workspace = folder / "work space"
    workspace.mkdir(parents=True)
    state = folder / "state"

    def make() -> LocalTarget:
        return LocalTarget(run_id, state, lambda: workspace, kill_after=KILL_AFTER)

    target = make()
    target.open()
    yield Stand(run_id, target, make, local_shell, str(state), str(workspace))
    target.close()
    assert not state.exists()


def vm_stand(request: pytest.FixtureRequest, run_id: str) -> Iterator[Stand]:
    vm: VM = request.getfixturevalue("vm")
    connections: list[Connection] = []

    def make() -> VmTarget:
        connections.append(Connection(vm_spec(vm)))
        return VmTarget(connections[-1], run_id, vm.root, kill_after=KILL_AFTER)

    target = make()
    target.open()
    yield Stand(run_id, target, make, lambda command: vm.sh(command).stdout, target.state, target.workspace)
    target.close()
    for connection in connections:
        connection.close()
    assert vm.sh(f"ls -d {target.state} || true").stdout == ""
    vm.sh(f"rm -rf {target.workspace}")


def account_stand(request: pytest.FixtureRequest, run_id: str) -> Iterator[Stand]:
    vm: VM = request.getfixturevalue("account_vm")
    connections: list[Connection] = []

    def make() -> VmTarget:
        connection = Connection(vm_spec(vm))
        connections.append(connection)
        account = as_account.prepare(connection, vm.run_as, vm.root, run_id)
        return VmTarget(connection, run_id, vm.root, kill_after=KILL_AFTER, account=account)

    target = make()
    target.open()
    yield Stand(run_id, target, make, lambda command: vm.sh(command).stdout, target.state, target.workspace)
    target.close()
    account = as_account.prepare(connections[0], vm.run_as, vm.root, run_id)
    assert as_account.leave(connections[0], account, vm.root, run_id)
    as_account.remove(connections[0], vm.run_as, vm.root, run_id)
    for connection in connections:
        connection.close()
    assert vm.sh(f"find {vm.root}/.system /tmp -name '*{run_id}*' || true").stdout == ""


@pytest.fixture(scope="session")
def account_vm(bed: None) -> Iterator[VM]:
    """A VM whose account only this worker's tests use: a sweep kills every process of the account."""
    with VM.up(images=False) as vm:
        yield vm


STANDS: dict[str, MakeStand] = {"local": local_stand, "vm": vm_stand, "account": account_stand}


@pytest.fixture(params=STANDS)
def stand(request: pytest.FixtureRequest) -> Iterator[Stand]:
    """Each target in turn, open, in a run of its own."""
    yield from STANDS[request.param](request, f"run-{uuid.uuid4().hex[:12]}")


def vm_spec(vm: VM) -> Vm:
    """Describe a VM of the test bed as a project file would."""
    return Vm(vm.host, vm.user, vm.port, vm.key, vm.known_hosts, vm.root)
