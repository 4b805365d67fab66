"""Make the real VMs' disks: Debian with systemd and its own kernel, made once with debootstrap.

`build` leaves in `FOLDER`: bare.img, a cloud's new VM; disk.img, a VM ready for runs; vmlinuz, initrd, the
login's key, the host key, and `accel`, the working accelerator.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from tests.testbed import images
from tests.testbed.engine import forget_image
from tests.testbed.place import HERE, STATE, BedError, call, locked
from tests.testbed.recipe import TEMPLATE

FOLDER = STATE / "real-vm"
DISK = FOLDER / "disk.img"
BARE_DISK = FOLDER / "bare.img"
BARE_PACKAGES = (
    "systemd-sysv,udev,dbus,iproute2,procps,openssh-server,libpam-systemd,sudo,linux-image-cloud-amd64,initramfs-tools,"
    "ca-certificates"
)
PACKAGES = ("iptables", "docker.io", "apparmor", "rsync", "acl", "git")
PROGRAMS = ("qemu-system-x86_64", "qemu-img", "debootstrap", "mkfs.ext4")
BARE = """
useradd -m -s /bin/bash -p '*' pcc
mkdir -p /home/pcc/.ssh /root/.ssh
cp /key.pub /home/pcc/.ssh/authorized_keys
mv /key.pub /root/.ssh/authorized_keys
chmod 700 /home/pcc/.ssh /root/.ssh
chown -R pcc: /home/pcc
echo realvm >/etc/hostname
echo '127.0.0.1 localhost realvm' >/etc/hosts
echo '/dev/vda / ext4 rw 0 1' >/etc/fstab
printf '[Match]\\nName=eth*\\n[Network]\\nDHCP=yes\\n' >/etc/systemd/network/10.network
# The test bed's VMs have this instead of an init system.
rm /usr/local/sbin/service
update-ca-certificates >/dev/null 2>&1
systemctl enable systemd-networkd ssh
"""
FURNISH = f"""
export DEBIAN_FRONTEND=noninteractive
apt-get -q update && apt-get -q install -y --no-install-recommends {" ".join(PACKAGES)}
apt-get clean
rm /etc/sudoers.d/pcc
usermod -aG docker pcc
useradd -r -M -d /nonexistent -s /bin/sh -p '*' pccrun
echo 'pcc ALL=(pccrun) NOPASSWD: ALL' >/etc/sudoers.d/pccpipe-pccrun
chmod 440 /etc/sudoers.d/pccpipe-pccrun
install -d -o pcc -g pcc /home/project
systemctl enable docker
"""
RESOLVER = "nameserver 10.0.2.3\n"
"""qemu's DNS server, which asks this machine's."""


def lacks() -> list[str]:
    """Return the programs that a real VM needs and this machine lacks."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


def build() -> None:
    """Make both disks. Takes two to six minutes, and 6 GB."""
    images.ensure()
    with locked("real-vm"):
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir(parents=True)
        root = FOLDER / "root"
        images.debootstrap(root, BARE_PACKAGES, HERE / "bare-rootfs.sh")
        call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", FOLDER / "key")
        shutil.copy(FOLDER / "key.pub", root / "key.pub")
        _in(root, BARE)
        kind, public = (root / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()[:2]
        (FOLDER / "host_key.pub").write_text(f"{kind} {public}\n")
        kernel, initrd = (next((root / "boot").glob(name)) for name in ("vmlinuz-*", "initrd.img-*"))
        shutil.copy(kernel, FOLDER / "vmlinuz")
        shutil.copy(initrd, FOLDER / "initrd")
        (FOLDER / "accel").write_text("kvm" if _kvm_boots() else "tcg,thread=multi")
        # There is no registry: the bare VM's later engine finds the base image, and the layers of the other image.
        _give_images(root)
        forget_image(root / "var/lib/docker", "pcc-runner")
        _write(root, BARE_DISK)
        _in(root, FURNISH)
        _give_images(root)
        _write(root, DISK)
        shutil.rmtree(root)


def _in(root: Path, script: str) -> None:
    """Run a script as root of a root file system, with this machine's network."""
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    # No service that is installed there starts here.
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    call("chroot", root, "sh", "-ec", script, env={**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    policy.unlink()
    (root / "etc/resolv.conf").write_text(RESOLVER)


def _give_images(root: Path) -> None:
    """Give the root's engine the images of the test bed."""
    data = root / "var/lib/docker"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(mode=0o710, parents=True)
    with locked("images", shared=True):
        for part in ("overlay2", "image"):
            call("cp", "-a", TEMPLATE / part, data / part)


def _write(root: Path, disk: Path) -> None:
    unfinished = disk.with_suffix(".part")
    call("truncate", "-s", "8G", unfinished)
    call("mkfs.ext4", "-q", "-F", "-d", root, unfinished)
    unfinished.rename(disk)


def _kvm_boots() -> bool:
    """Return whether a guest boots: nested, /dev/kvm may open and its guest hang before its first line."""
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
    """Raise a BedError if there are no disks to boot from."""
    if missing := lacks():
        raise BedError(f"lacks {', '.join(missing)}: apt-get install qemu-system-x86 qemu-utils debootstrap e2fsprogs")
    if not DISK.exists() or not BARE_DISK.exists():
        raise BedError("no disks yet: python -m tests.real_vm build")
