"""Check that a machine can carry a test bed."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from pathlib import Path

from tests.testbed.place import HERE, STATE, call, tried

# The programs that the bed runs, by their Debian package.
PROGRAMS = {
    "docker.io": ("dockerd", "docker"),
    "openssh-client": ("ssh", "ssh-keygen"),
    "iproute2": ("ip",),
    "iptables": ("iptables",),
    "debootstrap": ("debootstrap",),
    "busybox-static": ("busybox",),
    "util-linux": ("nsenter", "unshare", "setsid"),
    "e2fsprogs": ("mkfs.ext4",),
    "rsync": ("rsync",),
}


def lacks() -> list[str]:
    """Return what this machine lacks, one sentence each; empty if it can carry a bed."""
    if platform.system() != "Linux":
        return [f"needs Linux, this is {platform.system()}"]
    if os.geteuid() != 0:
        return ["needs root, to make network namespaces and to run Docker Engines"]
    return _missing_programs() or _missing_kernel_parts()


def _missing_programs() -> list[str]:
    missing = [
        f"lacks {', '.join(absent)} (Debian package {package}; {HERE / 'install.sh'} installs it)"
        for package, programs in PROGRAMS.items()
        if (absent := [program for program in programs if shutil.which(program) is None])
    ]
    if not Path("/etc/debian_version").exists():
        missing.append("needs Debian or Ubuntu, as a VM's root is made with the machine's own apt settings")
    if importlib.util.find_spec("pip") is None:
        missing.append(f"lacks pip in {sys.executable} (python -m ensurepip installs it)")
    return missing


def _missing_kernel_parts() -> list[str]:
    missing = []
    if not tried("unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "true"):
        missing.append("may not make namespaces (unshare fails; a container needs --privileged)")
    if not tried("unshare", "--net", "ip", "link", "add", "bed0", "type", "veth", "peer", "name", "bed1"):
        missing.append("may not make veth links in a network namespace")
    if not tried("unshare", "--net", "iptables", "-w", "-t", "raw", "-L", "-n"):
        missing.append("has no working iptables in a network namespace")
    if not Path("/sys/fs/cgroup").is_dir():
        missing.append("has no /sys/fs/cgroup")
    STATE.mkdir(parents=True, exist_ok=True)
    if call("stat", "-f", "-c", "%T", STATE).strip() == "overlayfs":
        missing.append(f"has an overlay under {STATE}, on which Docker can't work; set PCCPIPE_TESTBED to a real disk")
    return missing
