"""Containers of a project with `run_as`: they run as the account, and nothing else can write what they leave."""

from __future__ import annotations

import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from pccpipe.detached import as_account
from pccpipe.detached.programs import RunDir
from pccpipe.errors import Unavailable
from pccpipe.outcome import Reason
from pccpipe.ssh.connection import Connection
from pccpipe.target import ContainerSettings, Exit
from pccpipe.targets.container import ContainerTarget
from pccpipe.targets.turns import Turns
from pccpipe.targets.vm import VmTarget
from tests.targets.conftest import vm_spec
from tests.targets.stand import Stand, read_all, read_until, until
from tests.testbed.vm import VM

BOX = ContainerSettings("bb:latest", network="none", pids=100)


@contextmanager
def opened(vm: VM) -> Iterator[tuple[Stand, VmTarget]]:
    """A stand for containers, and the target for commands of the same run."""
    run_id = f"run-{uuid.uuid4().hex[:12]}"
    connection = Connection(vm_spec(vm))
    account = as_account.prepare(connection, vm.run_as, vm.root, run_id, is_new=True)
    state = f"{vm.root}/.system/run-state/{run_id}"
    boxes: list[ContainerTarget] = []

    def running() -> list[str]:
        return boxes[0].running()

    turns = Turns(connection, RunDir(run_id, state, account), running, resumes=False)

    def make() -> ContainerTarget:
        boxes.append(
            ContainerTarget(connection, run_id, state, lambda: account.workspace, account=account, turns=turns)
        )
        return boxes[-1]

    commands = VmTarget(connection, run_id, vm.root, account=account, turns=turns)
    stand = Stand(run_id, make(), make, lambda line: vm.sh(line).stdout, state, account.workspace, {"container": BOX})
    stand.target.open()
    commands.open()
    try:
        yield stand, commands
    finally:
        stand.target.close()
        commands.close()
        as_account.remove(connection, vm.run_as, vm.root, run_id)
        assert vm.sh(f"find {vm.root}/.system -name '*{run_id}*'").stdout == ""
        connection.close()


@pytest.fixture
def both(vm: VM) -> Iterator[tuple[Stand, VmTarget]]:
    with opened(vm) as stands:
        yield stands


def as_the_account(vm: VM, script: str) -> str:
    return vm.sh(f"su {vm.run_as} -s /bin/sh", stdin=script, check=False).stdout


def test_a_container_runs_as_the_account_and_writes_its_workspace(both: tuple[Stand, VmTarget], vm: VM) -> None:
    stand, _ = both
    out, err, exit_ = stand.run(
        "id -u; echo made >file; cat $PCC_IN/note; echo r >$PCC_OUT/r; ls -ln file",
        files={"note": b"note\n"},
        wants_out=True,
    )
    uid = vm.sh(f"id -u {vm.run_as}").stdout.strip()
    assert (out.decode().split()[:2], err, exit_) == ([uid, "note"], b"", Exit(0))
    assert vm.sh(f"stat -c %U {stand.workspace}/file").stdout == f"{vm.run_as}\n"


def test_the_account_cannot_reach_the_out_folder_of_a_container_by_path(both: tuple[Stand, VmTarget], vm: VM) -> None:
    stand, _ = both
    running = stand.start("echo up; sleep 2; echo honest >$PCC_OUT/r", wants_out=True)
    read_until(running, b"up\n")
    out = f"{stand.state}/commands/step-1.out"
    assert vm.sh(f"ls -d {out}").stdout == f"{out}\n"
    forge = f"for d in {stand.state}/commands/*.out {out}; do echo forged >$d/r && echo wrote; ls $d && echo read; done"
    assert as_the_account(vm, forge) == ""
    assert read_all(running)[2] == Exit(0)
    assert running.fetch("r", 100) == b"honest\n"
    running.discard()


def test_containers_cannot_reach_each_others_folders(both: tuple[Stand, VmTarget]) -> None:
    stand, _ = both
    first = stand.start("echo up; sleep 3; cat $PCC_OUT/r", wants_out=True, files={"mine": b"x"})
    read_until(first, b"up\n")
    find = "find / -name mine -o -name '*.out' 2>/dev/null; echo forged >$PCC_OUT/r; ls /pcc; ls -A $PCC_OUT $PCC_IN"
    out = stand.run(find, wants_out=True)[0].decode().split()
    assert not [word for word in out if "mine" in word or ".out" in word]
    assert read_all(first)[0] == b""
    first.discard()


def test_folders_that_a_container_left_in_its_out_are_removed(both: tuple[Stand, VmTarget], vm: VM) -> None:
    stand, _ = both
    script = "cd $PCC_OUT; mkdir -p a/b; echo x >a/b/c; chmod 500 a/b; chmod 700 a; echo r >r"
    running = stand.start(script, wants_out=True)
    read_all(running)
    assert running.fetch("r", 10) == b"r\n"
    running.discard()


def test_a_sweep_before_a_container_spares_only_the_runs_other_containers(both: tuple[Stand, VmTarget], vm: VM) -> None:
    stand, _ = both
    first = stand.start(f"echo up; sleep {stand.nap} & sleep 4; echo alive; kill %1")
    read_until(first, b"up\n")
    vm.sh(f"setsid su {vm.run_as} -s /bin/sh -c 'exec setsid sleep 4321.5' >/dev/null 2>&1 </dev/null &")
    until(lambda: bool(vm.pids("^sleep 4321.5")))
    assert stand.run("echo second")[0] == b"second\n"
    assert vm.pids("^sleep 4321.5") == []
    assert stand.naps() == 1
    assert read_all(first)[0] == b"alive\n"
    first.discard()


def test_a_command_waits_for_a_container_and_its_processes_are_dead_in_the_next(
    both: tuple[Stand, VmTarget], vm: VM
) -> None:
    stand, commands = both
    left = stand.command(f"env -i setsid /bin/sleep {stand.nap} </dev/null >/dev/null 2>&1 & echo x")
    running = commands.start(left)
    read_all(running)
    assert stand.naps() == 0
    running.discard()
    boxed = stand.start("echo up; sleep 2")
    read_until(boxed, b"up\n")
    began = time.monotonic()
    ends: list[float] = []

    def run() -> None:
        late = commands.start(stand.command("echo late"))
        read_all(late)
        ends.append(time.monotonic() - began)
        late.discard()

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(1)
    assert ends == []
    read_all(boxed)
    boxed.discard()
    thread.join(20)
    assert ends


@pytest.fixture
def remapped(vms: Callable[..., VM]) -> VM:
    vm = vms(images=False)
    vm.stop_docker()
    vm.sh("echo dockremap:200000:65536 | tee /etc/subuid >/etc/subgid; useradd -r dockremap; mkdir -p /etc/docker")
    vm.sh("""echo '{"userns-remap": "dockremap"}' >/etc/docker/daemon.json""")
    vm.start_docker()
    shutil.copy(shutil.which("busybox") or "busybox", vm.state / "home" / "busybox")
    vm.sh("mkdir -p /tmp/r/bin && cd /tmp/r && cp /home/busybox bin && /home/busybox --install -s bin")
    vm.sh("cd /tmp/r && ln -sf busybox bin/sh && ln -sf busybox bin/mkdir && tar -c . | docker import - small:latest")
    return vm


def test_with_userns_remap_a_container_asks_for_the_hosts_users(remapped: VM) -> None:
    box = ContainerSettings("small:latest", network="none")
    with opened(remapped) as (stand, _):
        running = stand.start("echo made >file; echo up", container=box)
        assert read_all(running)[:2] == (b"up\n", b"")
        assert "user" in running.isolation.shared
        assert remapped.sh(f"stat -c %U {stand.workspace}/file").stdout == f"{remapped.run_as}\n"
        running.discard()


def test_a_rootless_engine_cannot_be_combined_with_run_as(
    both: tuple[Stand, VmTarget], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand, _ = both
    # The test bed's kernel cannot run one; pccpipe asks it only for this.
    monkeypatch.setattr(
        "pccpipe.docker_api.engine.DockerEngine.security_options", lambda _: ("seccomp=builtin", "rootless")
    )
    with pytest.raises(Unavailable, match="rootless") as caught:
        stand.start("true")
    assert caught.value.reason is Reason.ENGINE_MAPS_USERS
    assert "run_as" in caught.value.hint
