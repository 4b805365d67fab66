"""Make a project VM of namespaces: own address, own processes, own root, own sshd on port 22, own Docker Engine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path

from tests.testbed.engine import answers, clone_images, remove_cgroups, remove_tree
from tests.testbed.images import BARE_ROOT, VM_ROOT
from tests.testbed.network import Link
from tests.testbed.place import HERE, VMS, BedError, call, locked, start_apart, this_process, tried, wait_for
from tests.testbed.recipe import TEMPLATE

KEPT = "kept"  # the owner of a VM that stays until someone takes it down


class VM:
    """One VM. `VM.up()` makes it, `down` removes it and everything in it; it is a context manager too.

    `user` (in group docker) and root may log in at `host`:`port` with `key`; `known_hosts` has its host key. The VM and
    its containers reach a server that listens on `host_side` on this machine.
    """

    user = "pcc"
    port = 22
    root = "/home/project"
    run_as = "pccrun"
    """An account that `user` may run commands as, by sudo; it is in no privileged group."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = VMS / name
        number = self.state / "number"
        if not number.exists():
            raise BedError(f"no VM is named {name}")
        self.link = Link(int(number.read_text()))
        self.host = self.link.vm_address
        self.host_side = self.link.host_address
        self.key = self.state / "key"
        self.known_hosts = self.state / "known_hosts"
        self._children: list[subprocess.Popen[bytes]] = []  # what this process must reap

    @classmethod
    def up(
        cls,
        name: str | None = None,
        *,
        images: bool = True,
        home_mb: int | None = None,
        keep: bool = False,
        bare: bool = False,
        template: Path = TEMPLATE,
    ) -> VM:
        """Make a VM and start it.

        `images=False` leaves its engine empty. `home_mb` gives /home a separate small file system, for `fill`. With
        `keep` it outlives this process; without, the next session cleans it up if this process was killed. A `bare` VM
        is a cloud's new VM: sshd, and a user who may become root by sudo. The engine that it will get finds images.
        `template` is the Docker data folder that has them.
        """
        name = name or f"vm-{uuid.uuid4().hex[:8]}"
        state = VMS / name
        with locked("vms"):
            if state.exists():
                raise BedError(f"a VM named {name} exists already")
            state.mkdir(parents=True, mode=0o755)
            (state / "owner").write_text(KEPT if keep else this_process())
        try:
            link = Link.claim()
            (state / "number").write_text(str(link.number))
            vm = cls(name)
            if bare:
                (state / "bare").touch()
            vm._furnish(template if images else None, home_mb)
            vm._boot()
        except BaseException:
            remove_vm(state)
            raise
        return vm

    def down(self) -> None:
        """Remove the VM: processes, network, control groups, files."""
        remove_vm(self.state)
        for child in self._children:
            child.wait(timeout=10)

    def reboot(self) -> None:
        """Cut the power and start again. /home and Docker's data stay; /tmp, /run and changes to /etc do not."""
        stop_processes(self.state)
        (self.state / "bed" / "ready").unlink(missing_ok=True)
        self.heal()
        self._boot()

    def sh(self, command: str, *, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a shell command as root inside, without the network, so that it works during any fault."""
        return _run([*self._enter(), "sh", "-c", command], check, stdin)

    def ssh(
        self, command: str, *, check: bool = True, stdin: str | None = None, user: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command over SSH with the real client."""
        options = ["IdentitiesOnly=yes", f"UserKnownHostsFile={self.known_hosts}", "StrictHostKeyChecking=yes"]
        options += ["BatchMode=yes", "ConnectTimeout=5", "ServerAliveInterval=5", "LogLevel=ERROR"]
        flags = [word for option in options for word in ("-o", option)]
        argv = ["ssh", "-F", "none", "-i", str(self.key), *flags, f"{user or self.user}@{self.host}", command]
        return _run(argv, check, stdin)

    def pids(self, pattern: str) -> list[int]:
        """Return the ids inside the VM of processes whose command line matches, containers' processes too."""
        # Without a shell, because its own command line would match.
        return [int(pid) for pid in _run([*self._enter(), "pgrep", "-f", "--", pattern], False, None).stdout.split()]

    # Faults of the network.

    def cut(self) -> None:
        """Drop packets in both directions: nothing is refused and nothing is reset."""
        self.link.cut()

    def heal(self) -> None:
        """End `cut`."""
        self.link.heal()

    def unplug(self) -> None:
        """Take the link down: after some seconds there is no route to host."""
        self.link.unplug()

    def plug(self) -> None:
        """End `unplug`."""
        self.link.plug()

    def slow(self, milliseconds: float, loss_percent: float = 0) -> None:
        """Delay each packet between machine and VM, in each direction, and lose some; 0 ends that."""
        pid_file = self.state / "slow.pid"
        _kill(pid_file)
        wait_for("end of the slow link", lambda: not self.link.has_slow(), 3)
        if not milliseconds:
            return
        argv = [sys.executable, str(HERE / "slowlink.py"), *self.link.slow_names, str(milliseconds), str(loss_percent)]
        relay = start_apart(argv, self.state / "slow.log")
        self._children.append(relay)
        pid_file.write_text(str(relay.pid))
        wait_for("slow link", self.link.has_slow, 5)
        self.link.route_over_slow()

    # Faults of sshd.

    def refuse(self) -> None:
        """Stop sshd's listener: new connections are refused, open sessions continue."""
        self.sh("kill $(cat /run/sshd.pid)")
        wait_for("sshd's end", lambda: not self._sshd_listens(), 5)

    def accept(self) -> None:
        """End `refuse`."""
        self.sh("/usr/sbin/sshd -E /bed/sshd.log")
        # sshd goes to the background before it listens.
        wait_for("sshd", self._sshd_listens, 5)

    def kill_sessions(self) -> int:
        """Kill sshd's process for every open connection, and return their number. Their commands continue."""
        # From OpenSSH 9.8 on, sessions have another process name.
        script = """
            listener=$(cat /run/sshd.pid 2>/dev/null); n=0
            for pid in $(pgrep -x 'sshd|sshd-session'); do
              [ "$pid" = "$listener" ] || { kill -KILL "$pid" 2>/dev/null && n=$((n+1)); }
            done
            echo $n"""
        return int(self.sh(script).stdout)

    def new_host_key(self) -> None:
        """Give sshd another host key; `known_hosts` keeps the old one."""
        self.sh("rm -f /etc/ssh/bed_host_key* && ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/bed_host_key")
        self.refuse()
        self.accept()

    # Faults of the engine.

    def stop_docker(self, how: str = "TERM") -> None:
        """Stop dockerd: in an orderly way, which ends containers, or with KILL at once, and containers continue."""
        self.sh(f"kill -s {how} $(cat /run/docker.pid)")
        wait_for("dockerd's end", lambda: not self.pids("^dockerd"), 30)

    def start_docker(self) -> None:
        """End `stop_docker`."""
        self._start_dockerd()
        wait_for("dockerd", self._docker_answers, 30)

    def pause_docker(self) -> None:
        """Freeze dockerd: its socket accepts connections, but nothing answers."""
        self.sh("kill -STOP $(cat /run/docker.pid)")

    def resume_docker(self) -> None:
        """End `pause_docker`."""
        self.sh("kill -CONT $(cat /run/docker.pid)")

    def leave_docker_group(self) -> None:
        """Remove the user from group docker: new sessions get permission denied on the engine's socket."""
        self.sh("gpasswd -d pcc docker")

    def join_docker_group(self) -> None:
        """End `leave_docker_group`."""
        self.sh("gpasswd -a pcc docker")

    # Faults of the disk; they need a VM with `home_mb`.

    def fill(self, left_mb: int = 0) -> None:
        """Fill /home until `left_mb` are free."""
        self.sh(
            f"free=$(df -m --output=avail /home | tail -1); "
            f"dd if=/dev/zero of=/home/.fill bs=1M count=$((free - {left_mb})) 2>/dev/null; sync; "
            f"[ {left_mb} -gt 0 ] || dd if=/dev/zero of=/home/.fill-rest bs=1k 2>/dev/null || true"
        )

    def unfill(self) -> None:
        """End `fill`."""
        self.sh("rm -f /home/.fill /home/.fill-rest")

    # Making and starting it.

    def _furnish(self, template: Path | None, home_mb: int | None) -> None:
        for folder in ("root", "home", "bed"):
            (self.state / folder).mkdir()
        for key in ("key", "host_key"):
            call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"{self.name}-{key}", "-f", self.state / key)
        kind, public = (self.state / "host_key.pub").read_text().split()[:2]
        self.known_hosts.write_text(f"{self.host} {kind} {public}\n")
        if home_mb is not None:
            image = self.state / "home.img"
            call("truncate", "-s", f"{home_mb}M", image)
            call("mkfs.ext4", "-q", "-m", "0", image)
        if template:
            clone_images(self.state / "docker", template)
        else:
            (self.state / "docker").mkdir(mode=0o710)

    def _boot(self) -> None:
        init_log = self.state / "init.log"
        argv = ["nsenter", f"--net=/run/netns/{self.link.namespace}", "unshare", "--mount", "--pid", "--uts", "--ipc"]
        argv += ["--fork", "--propagation", "private", "bash", str(HERE / "vm-init.sh"), self.name, str(self.state)]
        is_bare = (self.state / "bare").exists()
        started = start_apart([*argv, str(BARE_ROOT), "bare"] if is_bare else [*argv, str(VM_ROOT)], init_log)
        self._children.append(started)
        ready = self.state / "bed" / "ready"
        wait_for("the VM's first process", lambda: ready.exists() or started.poll() is not None, 15)
        if not ready.exists():
            raise BedError(f"the VM did not start: {init_log.read_text()[-2000:]}")
        children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
        (self.state / "init.pid").write_text(children[0])
        if not is_bare:
            self._start_dockerd()
        wait_for("sshd", self._sshd_listens, 5)
        if is_bare:
            return
        try:
            wait_for("dockerd", self._docker_answers, 30)
        except BedError as error:
            raise BedError(f"{error}: {(self.state / 'bed' / 'dockerd.log').read_text()[-2000:]}") from None

    def _start_dockerd(self) -> None:
        options = "--host unix:///run/docker.sock --exec-opt native.cgroupdriver=cgroupfs"
        options += f" --cgroup-parent /pccbed-{self.name}"
        self.sh(f"rm -f /run/docker.pid; setsid dockerd {options} </dev/null >>/bed/dockerd.log 2>&1 &")

    def _docker_answers(self) -> bool:
        # Directly through the VM's root: a docker client inside takes 30 ms a try.
        return answers(Path(f"/proc/{self._init()}/root/run/docker.sock"))

    def _sshd_listens(self) -> bool:
        try:
            socket.create_connection((self.host, self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def _init(self) -> int:
        pid = init_of(self.state)
        if pid is None:
            raise BedError(f"{self.name} is not running")
        return pid

    def _enter(self) -> list[str]:
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return ["nsenter", "-t", str(self._init()), "-m", "-p", "-n", "-u", "-i", "--", "env", "-i", path, "HOME=/root"]

    def __enter__(self) -> VM:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()


def init_of(state: Path) -> int | None:
    """Return the id, on the machine, of the first process of the VM in this folder."""
    try:
        pid = int((state / "init.pid").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return pid if str(state).encode() in command.split(b"\0") else None


def stop_processes(state: Path) -> None:
    """Kill the VM's first process; the kernel then kills all others."""
    pid = init_of(state)
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
        wait_for("the VM's end", lambda: init_of(state) is None, 15)
    remove_cgroups(f"pccbed-{state.name}")


def remove_vm(state: Path) -> None:
    """Remove a VM, also if parts of it are missing."""
    stop_processes(state)
    _kill(state / "slow.pid")
    number = state / "number"
    if number.exists():
        Link(int(number.read_text())).remove()
    remove_tree(state)


def all_vms() -> list[VM]:
    """Return all VMs."""
    return [VM(number.parent.name) for number in sorted(VMS.glob("*/number"))]


def _kill(pid_file: Path) -> None:
    if pid_file.exists():
        tried("kill", pid_file.read_text())
        pid_file.unlink()


def _run(argv: list[str], check: bool, stdin: str | None) -> subprocess.CompletedProcess[str]:
    # Give an empty input by default: a command must not wait for this terminal.
    done = subprocess.run(argv, input=stdin or "", capture_output=True, text=True, errors="replace", check=False)
    if check and done.returncode:
        raise BedError(f"{argv[-1]}: exit {done.returncode}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done
