from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.testbed import cleanup
from tests.testbed.place import VMS, BedError
from tests.testbed.vm import VM, init_of

MakeVM = Callable[..., VM]


def test_a_vm_is_up_in_five_seconds_with_images_and_can_run_them(vms: MakeVM) -> None:
    started = time.monotonic()
    vm = vms()
    took = time.monotonic() - started

    assert vm.ssh("id -un; docker run --rm --network none bb:latest echo hello").stdout.split() == ["pcc", "hello"]
    assert {"bb:latest", "node:20-slim", "pcc-runner:latest"} <= set(
        vm.ssh("docker image ls --format '{{.Repository}}:{{.Tag}}'").stdout.split()
    )
    assert took < 5


def test_two_vms_at_once_have_their_own_network_processes_files_and_containers(vm: VM, fresh_vm: VM) -> None:
    vm.sh("touch /home/project/mine")
    name = vm.ssh("docker run -d --network none bb:latest sleep 1234567").stdout.strip()
    try:
        assert vm.host != fresh_vm.host
        assert vm.pids("sleep 1234567")
        assert not fresh_vm.pids("sleep 1234567")
        assert fresh_vm.ssh("ls /home/project; docker ps -aq").stdout == ""
    finally:
        vm.sh(f"docker rm -f {name}; rm /home/project/mine")


def test_a_vm_is_no_more_than_a_bare_project_vm(vm: VM) -> None:
    assert vm.ssh("command -v node npm python3 codex", check=False).stdout == ""
    assert vm.ssh("stat -c '%U:%G %a' /run/docker.sock").stdout.strip() == "root:docker 660"
    assert vm.ssh("stat -c %U /home/project").stdout.strip() == "pcc"


def test_what_a_container_does_to_its_image_reaches_no_other_vm(vms: MakeVM) -> None:
    # The VMs' layers are hard links to the same files.
    one, other = vms(), vms()
    state = "docker run --rm node:20-slim sh -c 'sha1sum /etc/profile; stat -c %a /etc/profile'"
    before = other.ssh(state).stdout

    change = "echo x >>/etc/profile; chmod 700 /etc/profile"
    one.ssh(f"docker run --name changed node:20-slim sh -c '{change}' && docker commit changed node:20-slim")
    assert one.ssh(state).stdout != before
    one.ssh("docker rm changed && docker rmi -f node:20-slim pcc-runner:latest")

    assert other.ssh(state).stdout == before
    assert vms().ssh(state).stdout == before


def test_leaving_the_docker_group_is_permission_denied(fresh_vm: VM) -> None:
    fresh_vm.leave_docker_group()
    assert "permission denied" in fresh_vm.ssh("docker ps", check=False).stderr.lower()
    fresh_vm.join_docker_group()
    fresh_vm.ssh("docker ps")


def test_engine_faults(fresh_vm: VM) -> None:
    fresh_vm.pause_docker()
    assert fresh_vm.ssh("timeout 1 docker ps", check=False).returncode == 124
    fresh_vm.resume_docker()
    fresh_vm.ssh("docker ps")

    fresh_vm.ssh("docker run -d --network none bb:latest sleep 1234567")
    fresh_vm.stop_docker("KILL")
    assert "Is the docker daemon running" in fresh_vm.ssh("docker ps", check=False).stderr
    assert fresh_vm.pids("^sleep 1234567")


def test_an_orderly_stop_of_the_engine_ends_its_containers(fresh_vm: VM) -> None:
    fresh_vm.ssh("docker run -d --init --network none bb:latest sleep 1234567")
    fresh_vm.stop_docker()
    assert not fresh_vm.pids("sleep 1234567")
    fresh_vm.start_docker()
    assert "Exited" in fresh_vm.ssh("docker ps -a --format '{{.Status}}'").stdout


def test_sshd_faults(fresh_vm: VM) -> None:
    argv = ["ssh", "-i", str(fresh_vm.key), "-o", f"UserKnownHostsFile={fresh_vm.known_hosts}", f"pcc@{fresh_vm.host}"]
    with subprocess.Popen([*argv, "sleep 1234567"], stderr=subprocess.DEVNULL) as session:
        _until(lambda: bool(fresh_vm.pids("^sleep 1234567")))
        fresh_vm.refuse()
        assert "Connection refused" in fresh_vm.ssh("true", check=False).stderr
        assert session.poll() is None

        fresh_vm.accept()
        fresh_vm.ssh("true")
        assert fresh_vm.kill_sessions() >= 1
        assert session.wait(timeout=5) == 255
    assert fresh_vm.pids("^sleep 1234567")

    fresh_vm.new_host_key()
    assert "Host key verification failed" in fresh_vm.ssh("true", check=False).stderr


def test_network_faults(fresh_vm: VM) -> None:
    fresh_vm.cut()
    assert "timed out" in fresh_vm.ssh("true", check=False).stderr
    assert fresh_vm.sh("echo past it").stdout == "past it\n"
    fresh_vm.heal()
    fresh_vm.ssh("true")

    fresh_vm.unplug()
    assert fresh_vm.ssh("true", check=False).returncode == 255
    fresh_vm.plug()
    fresh_vm.ssh("true")

    fresh_vm.slow(50)
    started = time.monotonic()
    fresh_vm.ssh("true")
    assert time.monotonic() - started > 0.4
    fresh_vm.slow(0)
    fresh_vm.ssh("true")


def test_a_full_disk(vms: MakeVM) -> None:
    vm = vms(home_mb=64)
    vm.fill()
    assert "No space left" in vm.ssh("head -c 100000 /dev/zero >/home/project/f", check=False).stderr
    vm.unfill()
    vm.ssh("head -c 100000 /dev/zero >/home/project/f")


def test_a_reboot_keeps_the_disk_and_ends_the_processes(fresh_vm: VM) -> None:
    fresh_vm.ssh("echo kept >/home/project/f; docker run -d --network none bb:latest sleep 1234567")
    fresh_vm.reboot()
    assert fresh_vm.ssh("cat /home/project/f").stdout == "kept\n"
    assert "Exited" in fresh_vm.ssh("docker ps -a --format '{{.Status}}'").stdout
    assert not fresh_vm.pids("sleep 1234567")


@pytest.mark.usefixtures("bed")
def test_a_vm_of_a_killed_process_is_swept_and_one_of_a_living_process_is_not(vm: VM) -> None:
    script = "import os; from tests.testbed.vm import VM; print(VM.up(images=False).name, flush=True); os._exit(9)"
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    name = killed.stdout.strip()
    orphan = VM(name)
    init = init_of(orphan.state)
    assert init is not None

    cleanup.sweep()

    with pytest.raises(BedError, match="no VM is named"):
        VM(name)
    assert not (VMS / name).exists()
    with pytest.raises(ProcessLookupError):
        os.kill(init, 0)
    vm.ssh("true")


def _until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.05)
