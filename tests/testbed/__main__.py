"""Use the bed by hand: python -m tests.testbed COMMAND.

check                      print what this machine lacks, one line each; exit status 1 if there is any
images                     make the images and the VMs' root (two minutes, once)
up NAME [HOME_MB]          make a VM that stays; with HOME_MB its /home can be filled
down NAME | down-all       remove it, or everything that runs
list                       print name, address and state of each VM
env NAME                   print its address and key, for a shell's eval, and a project file for pccpipe
ssh NAME [COMMAND...]      as user pcc; sh NAME COMMAND...: as root, past the network
FAULT NAME [ARGUMENT...]   one of: FAULTS
model --help               the scripted model server
"""

from __future__ import annotations

import inspect
import os
import sys
from pathlib import Path

from tests.testbed import cleanup, images, machine, model
from tests.testbed.place import STATE, BedError
from tests.testbed.vm import VM, all_vms, init_of

FAULTS = {
    name.replace("_", "-"): name
    for name in (
        *("cut", "heal", "unplug", "plug", "slow", "refuse", "accept", "kill_sessions", "new_host_key", "reboot"),
        *("stop_docker", "start_docker", "pause_docker", "resume_docker", "leave_docker_group", "join_docker_group"),
        *("fill", "unfill"),
    )
}


def main(argv: list[str]) -> int:
    """Run a command, and return the exit status."""
    match argv:
        case ["check"]:
            missing = machine.lacks()
            print("\n".join(missing) or "this machine can carry a test bed")
            return 1 if missing else 0
        case ["images"]:
            images.ensure()
        case ["up", name, *rest]:
            up(name, *map(int, rest))
        case ["down", name]:
            VM(name).down()
        case ["down-all"]:
            cleanup.down_all()
        case ["list"]:
            for vm in all_vms():
                print(vm.name, vm.host, "up" if init_of(vm.state) else "down")
        case ["env", name]:
            print(environment(VM(name)), end="")
        case ["ssh", name, *command]:
            return ssh(VM(name), command)
        case ["sh", name, *command] if command:
            done = VM(name).sh(" ".join(command), check=False)
            print(done.stdout, end="")
            print(done.stderr, end="", file=sys.stderr)
            return done.returncode
        case ["model", *rest]:
            model.main(rest)
        case [fault, name, *rest] if fault in FAULTS:
            words = inspect.signature(getattr(VM, FAULTS[fault])).parameters
            numbers = [word if "how" in words else float(word) if "." in word else int(word) for word in rest]
            getattr(VM(name), FAULTS[fault])(*numbers)
        case _:
            print((__doc__ or "").replace("FAULTS", " ".join(FAULTS)), file=sys.stderr)
            return 2
    return 0


def up(name: str, home_mb: int | None = None) -> None:
    """Make a VM that stays, and print how to reach it."""
    cleanup.sweep()
    images.ensure()
    print(environment(VM.up(name, home_mb=home_mb, keep=True)), end="")


def environment(vm: VM) -> str:
    """Return the variables by which a shell reaches the VM; write the project file that they name."""
    project = vm.state / "project.yaml"
    project.write_text(
        f"id: {vm.name}\nisolation_mode: vm\nvm:\n  external_ip: {vm.host}\n  port: {vm.port}\n  user: {vm.user}\n"
        f"  key_path: {vm.key}\n  known_hosts: {vm.known_hosts}\n  root: {vm.root}\n"
    )
    values = {
        **{"VM_NAME": vm.name, "VM_HOST": vm.host, "VM_HOST_SIDE": vm.host_side, "VM_USER": vm.user},
        **{"VM_KEY": vm.key, "VM_KNOWN_HOSTS": vm.known_hosts, "VM_PROJECT": project},
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())


def ssh(vm: VM, command: list[str]) -> int:
    """Replace this process by the ssh client, so that a terminal works."""
    options = ["-o", f"UserKnownHostsFile={vm.known_hosts}", "-o", "StrictHostKeyChecking=yes"]
    os.execvp("ssh", ["ssh", "-F", "none", "-i", str(vm.key), *options, f"{vm.user}@{vm.host}", *command])


if __name__ == "__main__":
    if not Path("/proc/self/stat").exists() and sys.argv[1:] != ["check"]:
        sys.exit("the test bed needs Linux; python -m tests.testbed check says what is missing")
    try:
        sys.exit(main(sys.argv[1:]))
    except BedError as error:
        sys.exit(f"testbed ({STATE}): {error}")
