"""Do the same work with other programs: Fabric, Ansible, pyinfra and go-task in a separate environment; OpenSSH, rsync.

Two are missing: no package registry has act, and gitlab-ci-local needs a newer Node than Debian's.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import wall
from tests.testbed.vm import VM

PACKAGES = ("fabric==3.2.3", "ansible-core", "pyinfra", "go-task-bin")

FABRIC = """
import sys
from fabric import Connection

host, user, key, count = sys.argv[1:]
with Connection(host, user=user, connect_kwargs={"key_filename": key}) as connection:
    for _ in range(int(count)):
        connection.run("true", hide=True)
"""


def environment(folder: Path) -> Path:
    """Return the folder of the peers' programs; make it once."""
    programs = folder / "peers" / "bin"
    if not (programs / "task").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / "peers")], check=True)
        subprocess.run([str(programs / "pip"), "install", "--quiet", *PACKAGES], check=True)
    return programs


def true_steps(programs: Path, vm: VM, folder: Path, count: int) -> dict[str, Callable[[], float]]:
    """Return, for each peer, a job that runs `true` on the VM `count` times, as a whole process."""
    script = folder / "fabric_true.py"
    script.write_text(FABRIC)
    inventory = folder / "inventory"
    options = f"-o UserKnownHostsFile={vm.known_hosts}"
    inventory.write_text(
        f"vm ansible_host={vm.host} ansible_user={vm.user} ansible_ssh_private_key_file={vm.key} "
        f"ansible_ssh_common_args='{options}'\n"
    )
    playbook = folder / "raw.yaml"
    tasks = "".join("    - raw: 'true'\n" for _ in range(count))
    playbook.write_text(f"- hosts: vm\n  gather_facts: false\n  tasks:\n{tasks}")
    deploy = folder / "deploy.py"
    deploy.write_text("from pyinfra.operations import server\n" + "server.shell(commands=['true'])\n" * count)
    pyinfra_inventory = folder / "inventory.py"
    pyinfra_inventory.write_text(
        f"hosts = [({vm.host!r}, {{'ssh_user': {vm.user!r}, 'ssh_key': {str(vm.key)!r}, "
        f"'ssh_known_hosts_file': {str(vm.known_hosts)!r}}})]\n"
    )
    fabric = [str(programs / "python"), str(script), vm.host, vm.user, str(vm.key), str(count)]
    ansible = [str(programs / "ansible-playbook"), "-i", str(inventory), str(playbook)]
    pyinfra = [str(programs / "pyinfra"), "-y", str(pyinfra_inventory), str(deploy)]
    quiet = {"ANSIBLE_NOCOWS": "1", "ANSIBLE_LOCALHOST_WARNING": "0"}
    return {
        "Fabric": lambda: wall(fabric),
        "Ansible raw": lambda: wall(ansible, quiet),
        "pyinfra": lambda: wall(pyinfra, cwd=str(folder)),
        "ssh, ControlMaster": lambda: wall(_control_master(vm, folder, count)),
    }


def local_true_steps(programs: Path, folder: Path, count: int) -> dict[str, Callable[[], float]]:
    """Return, for each peer, a job that runs `true` locally `count` times, as a whole process."""
    home = folder / "go-task"
    home.mkdir()
    commands = "".join("      - 'true'\n" for _ in range(count))
    (home / "Taskfile.yml").write_text(f"version: '3'\ntasks:\n  default:\n    cmds:\n{commands}")
    return {"go-task": lambda: wall([str(programs / "task"), "--silent"], cwd=str(home))}


def ssh(vm: VM) -> list[str]:
    """Return the arguments of OpenSSH's client with the VM's key, up to the command."""
    options = ["-F", "none", "-i", str(vm.key), "-o", f"UserKnownHostsFile={vm.known_hosts}", "-o", "BatchMode=yes"]
    return ["ssh", *options, f"{vm.user}@{vm.host}"]


def uploads(vm: VM, source: Path, target: str) -> dict[str, list[str]]:
    """Return jobs that send a folder to the VM, by tar over ssh and by rsync."""
    *client, login = ssh(vm)
    unpack = f"mkdir -p {target}-tar && tar -C {target}-tar -xf -"
    tar = f"tar -C {shlex.quote(str(source))} -cf - . | {shlex.join([*client, login, unpack])}"
    rsync = ["rsync", "-a", "--delete", "-e", shlex.join(client), f"{source}/", f"{login}:{target}-rsync/"]
    return {"tar over ssh": ["sh", "-c", tar], "rsync": rsync}


def _control_master(vm: VM, folder: Path, count: int) -> list[str]:
    """Return a script that logs in once, then runs the client `count` times over that connection, as scripts do."""
    *client, login = ssh(vm)
    shared = [*client, "-S", str(folder / "master")]
    begin, each = shlex.join([*shared, "-M", "-N", "-f", login]), shlex.join([*shared, login, "true"])
    end = shlex.join([*shared, "-O", "exit", login])
    return ["sh", "-ec", f"{begin}; i=0; while [ $i -lt {count} ]; do {each}; i=$((i + 1)); done; {end} 2>&1"]
