"""The real VM's disk: Debian with systemd, its own kernel, sshd and Docker, made once with debootstrap.

`build` leaves in `FOLDER`: disk.img, vmlinuz, initrd, the login's key, the host key, and `accel`, the accelerator that
works.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from tests.testbed import images
from tests.testbed.engine import TEMPLATE
from tests.testbed.place import STATE, BedError, call, locked

FOLDER = STATE / "real-vm"
DISK = FOLDER / "disk.img"
PACKAGES = (
    "systemd-sysv,udev,dbus,iproute2,iptables,procps,openssh-server,libpam-systemd,docker.io,apparmor,rsync,sudo,acl,"
    "linux-image-cloud-amd64,initramfs-tools,ca-certificates,git"
)
PROGRAMS = ("qemu-system-x86_64", "qemu-img", "debootstrap", "mkfs.ext4")
FURNISH = """
useradd -m -s /bin/bash -p '*' -G docker pcc
useradd -r -M -d /nonexistent -s /bin/sh -p '*' pccrun
echo 'pcc ALL=(pccrun) NOPASSWD: ALL' >/etc/sudoers.d/pccpipe-pccrun
chmod 440 /etc/sudoers.d/pccpipe-pccrun
mkdir -p /home/project /home/pcc/.ssh /root/.ssh
cp /key.pub /home/pcc/.ssh/authorized_keys
mv /key.pub /root/.ssh/authorized_keys
chmod 700 /home/pcc/.ssh /root/.ssh
chown -R pcc: /home/pcc /home/project
echo realvm >/etc/hostname
echo '/dev/vda / ext4 rw 0 1' >/etc/fstab
printf '[Match]\\nName=eth*\\n[Network]\\nDHCP=yes\\n' >/etc/systemd/network/10.network
systemctl enable systemd-networkd ssh docker
"""


def lacks() -> list[str]:
    """List the programs that a real VM needs and this machine does not have."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


def build() -> None:
    """Make the disk. Takes one to five minutes, and 4 GB."""
    images.ensure()
    with locked("real-vm"):
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir(parents=True)
        root = FOLDER / "root"
        images.debootstrap(root, PACKAGES)
        call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", FOLDER / "key")
        shutil.copy(FOLDER / "key.pub", root / "key.pub")
        call("chroot", root, "sh", "-ec", FURNISH, env={**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
        kind, public = (root / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()[:2]
        (FOLDER / "host_key.pub").write_text(f"{kind} {public}\n")
        # The real VM has the images of the test bed's others.
        shutil.rmtree(root / "var/lib/docker", ignore_errors=True)
        with locked("images", shared=True):
            (root / "var/lib/docker").mkdir(mode=0o710, parents=True)
            for part in ("overlay2", "image"):
                call("cp", "-a", TEMPLATE / part, root / "var/lib/docker" / part)
        kernel, initrd = (next((root / "boot").glob(name)) for name in ("vmlinuz-*", "initrd.img-*"))
        shutil.copy(kernel, FOLDER / "vmlinuz")
        shutil.copy(initrd, FOLDER / "initrd")
        (FOLDER / "accel").write_text("kvm" if _kvm_boots() else "tcg,thread=multi")
        unfinished = FOLDER / "disk.part"
        call("truncate", "-s", "8G", unfinished)
        call("mkfs.ext4", "-q", "-F", "-d", root, unfinished)
        shutil.rmtree(root)
        unfinished.rename(DISK)


def _kvm_boots() -> bool:
    """Try it: nested, /dev/kvm may open and its guest hang before its first line."""
    log = FOLDER / "kvm.log"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    argv = ["qemu-system-x86_64", "-accel", "kvm", "-m", "512", "-display", "none", "-monitor", "none", "-no-reboot"]
    argv += ["-serial", f"file:{log}", "-kernel", str(FOLDER / "vmlinuz"), "-append", "console=ttyS0 panic=-1"]
    probe = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 20
        while time.monotonic() < until and probe.poll() is None:
            if "Linux version" in _text(log):
                return True
            time.sleep(0.2)
        return "Linux version" in _text(log)
    finally:
        probe.kill()
        probe.wait()


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def check_built() -> None:
    """Raise a BedError if there is no disk to boot from."""
    if missing := lacks():
        raise BedError(f"lacks {', '.join(missing)}: apt-get install qemu-system-x86 qemu-utils debootstrap e2fsprogs")
    if not DISK.exists():
        raise BedError("no disk yet: python -m tests.real_vm build")
