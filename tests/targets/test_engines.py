"""Engines that are not where Debian puts them, or that map users, for a project without `run_as`."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec.structs
import pytest

from pccpipe.docker_api.engine import DockerEngine
from pccpipe.errors import Unavailable
from pccpipe.outcome import Reason
from pccpipe.ssh.connection import Connection
from pccpipe.target import ContainerSettings, Exit
from pccpipe.targets.container import ContainerTarget
from tests.targets.conftest import vm_spec
from tests.targets.stand import Stand, read_all
from tests.testbed.vm import VM

SYSTEM = "/var/run/docker.sock"
OWN = "/run/user/$(id -u pcc)"


def engine_of(vm: VM, named: str | None = None) -> str:
    """Return the engine's socket, after a check that it answers there and runs containers."""
    connection = Connection(msgspec.structs.replace(vm_spec(vm), engine_socket=named))
    try:
        engine = DockerEngine(connection)
        engine.open()
        assert connection.facts.has_engine
        return engine.socket
    finally:
        connection.close()


def test_the_engines_socket_is_found_in_the_logins_settings(fresh_vm: VM) -> None:
    assert engine_of(fresh_vm) == SYSTEM
    uid = fresh_vm.ssh("id -u").stdout.strip()
    fresh_vm.sh(f"mkdir -p {OWN} && mv /run/docker.sock {OWN} && chown -R pcc: {OWN} && chmod 700 {OWN}")
    # Like rootless Docker, with a socket in the user's own folder.
    assert engine_of(fresh_vm) == f"/run/user/{uid}/docker.sock"
    fresh_vm.sh(f"mkdir {OWN}/podman && mv {OWN}/docker.sock {OWN}/podman/podman.sock && chown -R pcc: {OWN}")
    assert engine_of(fresh_vm) == f"/run/user/{uid}/podman/podman.sock"
    fresh_vm.sh(f"mv {OWN}/podman/podman.sock {OWN}/mine.sock")
    connection = Connection(vm_spec(fresh_vm))
    with pytest.raises(Unavailable) as caught:
        DockerEngine(connection).open()
    assert caught.value.reason is Reason.ENGINE_MISSING
    connection.close()
    fresh_vm.sh(f"echo export DOCKER_HOST=unix://{OWN}/mine.sock >/home/pcc/.bashrc")
    assert engine_of(fresh_vm) == f"/run/user/{uid}/mine.sock"
    fresh_vm.sh("rm /home/pcc/.bashrc")
    assert engine_of(fresh_vm, f"/run/user/{uid}/mine.sock") == f"/run/user/{uid}/mine.sock"
    # The system's own comes first: only root can replace it.
    fresh_vm.sh(f"mv {OWN}/mine.sock /run/docker.sock && chgrp docker /run/docker.sock")
    fresh_vm.sh("echo export DOCKER_HOST=unix:///tmp/nothing.sock >/home/pcc/.bashrc")
    assert engine_of(fresh_vm) == SYSTEM


def test_a_missing_socket_is_named(fresh_vm: VM) -> None:
    fresh_vm.sh("rm /run/docker.sock; echo export DOCKER_HOST=unix:///run/user/7/docker.sock >/home/pcc/.bashrc")
    for named, expected in ((None, "/run/user/7/docker.sock"), ("/run/other.sock", "/run/other.sock")):
        connection = Connection(msgspec.structs.replace(vm_spec(fresh_vm), engine_socket=named))
        with pytest.raises(Unavailable) as caught:
            DockerEngine(connection).open()
        assert caught.value.reason is Reason.ENGINE_MISSING
        assert caught.value.words == f"connect to {expected} on {fresh_vm.host}: No such file or directory"
        connection.close()


@contextmanager
def boxes(vm: VM) -> Iterator[Stand]:
    run_id = f"run-{uuid.uuid4().hex[:12]}"
    system = f"{vm.root}/.system"
    workspace, state = f"{system}/run-workspaces/{run_id}", f"{system}/run-state/{run_id}"
    connection = Connection(vm_spec(vm))

    def make() -> ContainerTarget:
        return ContainerTarget(connection, run_id, state, lambda: workspace)

    vm.ssh(f"umask 077; mkdir -p {workspace}")
    box = ContainerSettings("small:latest", network="none")
    stand = Stand(run_id, make(), make, lambda line: vm.sh(line).stdout, state, workspace, {"container": box})
    stand.target.open()
    yield stand
    stand.target.close()
    connection.close()


@pytest.fixture
def mapping(vms: Callable[..., VM]) -> Callable[[str], VM]:
    """Return a function that makes a VM with `userns-remap` from the first uid for users of containers."""

    def make(first: str) -> VM:
        vm = vms(images=False)
        vm.stop_docker()
        vm.sh(
            f"echo dockremap:{first}:65536 | tee /etc/subuid >/etc/subgid; useradd -r dockremap; mkdir -p /etc/docker"
        )
        vm.sh("""echo '{"userns-remap": "dockremap"}' >/etc/docker/daemon.json""")
        vm.start_docker()
        shutil.copy(shutil.which("busybox") or "busybox", vm.state / "home" / "busybox")
        # dockerd makes missing folders below / as a root that such containers do not have.
        vm.sh(
            "mkdir -p /tmp/r/bin /tmp/r/pcc/home && cd /tmp/r && cp /home/busybox bin && /home/busybox --install -s bin"
        )
        vm.sh(
            "cd /tmp/r && ln -sf busybox bin/sh && ln -sf busybox bin/mkdir && tar -c . | docker import - small:latest"
        )
        return vm

    return make


def test_with_userns_remap_a_container_works_as_the_hosts_user(mapping: Callable[[str], VM]) -> None:
    vm = mapping("200000")
    with boxes(vm) as stand:
        running = stand.start("echo made >file; id -u")
        uid = vm.ssh("id -u").stdout
        assert read_all(running) == (uid.encode(), b"", Exit(0))
        assert "user" in running.isolation.shared
        assert vm.sh(f"stat -c %U {stand.workspace}/file").stdout == "pcc\n"
        running.discard()


def test_with_a_rootless_engine_containers_run_as_their_root_which_is_the_login(
    mapping: Callable[[str], VM], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A rootless engine maps users like this; the test bed has none.
    vm = mapping("$(id -u pcc)")
    monkeypatch.setattr(DockerEngine, "security_options", lambda _: ("seccomp=builtin", "rootless"))
    with boxes(vm) as stand:
        running = stand.start("echo made >file; id -u")
        assert read_all(running) == (b"0\n", b"", Exit(0))
        assert "user" not in running.isolation.shared
        assert vm.sh(f"stat -c %U {stand.workspace}/file").stdout == "pcc\n"
        running.discard()
