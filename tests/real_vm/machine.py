"""Run a project VM under qemu: its own kernel, systemd, cgroup v2. It shares nothing with this machine."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.real_vm.disk import BARE_DISK, DISK, FOLDER, check_built
from tests.testbed.place import BedError, call, start_apart, wait_for

BOOT_LIMIT = 900
"""The longest boot, in seconds. Booting takes 5 s with kvm, 20 s without, and minutes without on a busy machine."""


class RealVM:
    """The real VM, or the `bare` one. `up` boots a copy of the disk, `down` discards the copy."""

    host = "127.0.0.1"
    host_side = "10.0.2.2"
    """This machine's loopback, as seen by the VM and its containers."""
    user = "pcc"
    root = "/home/project"
    run_as = "pccrun"
    key = FOLDER / "key"

    def __init__(self, *, bare: bool = False) -> None:
        self.disk = BARE_DISK if bare else DISK
        self.engine = not bare
        self.state = FOLDER / ("bare" if bare else "vm")
        self.known_hosts = self.state / "known_hosts"

    @property
    def port(self) -> int:
        try:
            return int((self.state / "port").read_text())
        except FileNotFoundError:
            raise BedError("the VM is not up: python -m tests.real_vm [bare] up") from None

    def up(self) -> None:
        """Boot the VM, unless it is up."""
        check_built()
        if self.runs():
            return
        shutil.rmtree(self.state, ignore_errors=True)
        self.state.mkdir()
        with socket.create_server((self.host, 0)) as free:
            port = free.getsockname()[1]
        (self.state / "port").write_text(str(port))
        self.known_hosts.write_text(f"[{self.host}]:{port} {(FOLDER / 'host_key.pub').read_text()}")
        disk = self.state / "disk.qcow2"
        call("qemu-img", "create", "-q", "-f", "qcow2", "-b", self.disk, "-F", "raw", disk)
        self.boot()

    def boot(self) -> None:
        """Start the VM on its disk, and wait for sshd, and for the engine if it has one."""
        argv = ["qemu-system-x86_64", "-accel", (FOLDER / "accel").read_text(), "-cpu", "max", "-smp", "2"]
        argv += ["-m", "1536", "-display", "none", "-monitor", "none", "-no-reboot"]
        argv += ["-serial", f"file:{self.state / 'console.log'}"]
        argv += ["-kernel", str(FOLDER / "vmlinuz"), "-initrd", str(FOLDER / "initrd")]
        argv += ["-append", "root=/dev/vda rw console=ttyS0 panic=-1 net.ifnames=0"]
        argv += ["-drive", f"file={self.state / 'disk.qcow2'},if=virtio,cache=unsafe"]
        argv += [
            "-netdev",
            f"user,id=n0,hostfwd=tcp:{self.host}:{self.port}-:22",
            "-device",
            "virtio-net-pci,netdev=n0",
        ]
        started = start_apart(argv, self.state / "qemu.log")
        (self.state / "pid").write_text(str(started.pid))
        until = time.monotonic() + BOOT_LIMIT
        is_ready = "docker info >/dev/null" if self.engine else "true"
        while self.sh(is_ready, check=False).returncode:
            if started.poll() is not None:
                raise BedError(f"qemu ended: {(self.state / 'qemu.log').read_text()[-2000:]}")
            if time.monotonic() > until:
                raise BedError(f"no sshd and engine within {BOOT_LIMIT} s: see {self.state / 'console.log'}")
            time.sleep(1)

    def cut_power(self) -> None:
        """End the VM at once. Data that it has not written to its disk is gone."""
        pid = self._pid()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            wait_for("qemu's end", lambda: _is_over(pid), 60)

    def down(self) -> None:
        """Cut the power and remove the VM's changes."""
        self.cut_power()
        shutil.rmtree(self.state, ignore_errors=True)

    def runs(self) -> bool:
        """Return whether its qemu runs."""
        return self._pid() is not None

    def sh(self, command: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a shell command as root in the VM."""
        options = ["IdentitiesOnly=yes", f"UserKnownHostsFile={self.known_hosts}", "StrictHostKeyChecking=yes"]
        options += ["BatchMode=yes", "ConnectTimeout=60", "LogLevel=ERROR"]
        flags = [word for option in options for word in ("-o", option)]
        argv = ["ssh", "-F", "none", "-i", str(self.key), "-p", str(self.port), *flags, f"root@{self.host}", command]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise BedError(f"{command}: exit {done.returncode}: {(done.stderr or done.stdout).strip()[-2000:]}")
        return done

    def _pid(self) -> int | None:
        """Find its qemu. If this process started it and it has ended, it is a zombie without a command line."""
        try:
            pid = int((self.state / "pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return pid if str(self.state).encode() in command else None


def _is_over(pid: int) -> bool:
    """Return whether all threads of a process have ended: until then it holds its lock of the disk."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state in {"Z", "X"} and len(list(Path(f"/proc/{pid}/task").iterdir())) == 1
    except (FileNotFoundError, ProcessLookupError):
        return True
