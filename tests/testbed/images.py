"""Make the bed's images once, without a registry, and the root file system that its VMs share.

`TEMPLATE` is a Docker data folder with the images: node:20-slim (a local replacement), pcc-runner:latest (the
project's own Dockerfile) and bb:latest (busybox, 2 MB). VMs and engines clone it.
"""

from __future__ import annotations

import hashlib
import shlex
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from tests.testbed.engine import Engine, copy_images
from tests.testbed.place import CACHE, HERE, BedError, call, locked
from tests.testbed.recipe import BB_DOCKERFILE, NODE_WHEEL, RUNNER, TEMPLATE

BARE_ROOT = CACHE / "bareroot"
# The packages of a project VM after provisioning, without those of the agent or of pccpipe itself: no Node, no Python.
VM_PACKAGES = "openssh-server,docker.io,rsync,procps,iproute2,iptables,git,ca-certificates,sudo"
# Named by its packages: a checkout with other packages makes another root beside it.
VM_ROOT = CACHE / f"vmroot-{hashlib.sha256(VM_PACKAGES.encode()).hexdigest()[:8]}"
BARE_PACKAGES = "openssh-server,sudo,procps"
NODE_STAMP = "node.made"
"""The recipe of node:20-slim, in the folder that has the image."""


def ensure() -> None:
    """Make all that is missing or older than its recipe. The first time takes two minutes, later ones milliseconds."""
    with locked("images"):
        CACHE.mkdir(parents=True, exist_ok=True)
        _once(VM_ROOT.name, VM_PACKAGES, lambda: debootstrap(VM_ROOT, VM_PACKAGES))
        _once(TEMPLATE.name, TEMPLATE.name, _build_images)


def ensure_bare() -> None:
    """Make the root of bare VMs, which few tests need: half a minute, once."""
    with locked("images"):
        CACHE.mkdir(parents=True, exist_ok=True)
        recipe = BARE_PACKAGES + (HERE / "bare-rootfs.sh").read_text()
        _once("bareroot", recipe, lambda: debootstrap(BARE_ROOT, BARE_PACKAGES, HERE / "bare-rootfs.sh"))


def _once(name: str, recipe: str, make: Callable[[], None]) -> None:
    stamp = CACHE / f"{name}.made"
    if not stamp.exists() or stamp.read_text() != recipe:
        make()
        stamp.write_text(recipe)


def debootstrap(root: Path, packages: str = "", then: Path | None = None) -> None:
    _say(f"making {root.name} with debootstrap")
    part = root.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    include = [f"--include={packages}"] if packages else []
    call("debootstrap", "--variant=minbase", *include, _os_release("VERSION_CODENAME"), part, _mirror())
    if then:
        call(then, part)
    shutil.rmtree(root, ignore_errors=True)
    part.rename(root)


def _build_images() -> None:
    _begin_with_the_last()
    engine = Engine(TEMPLATE, CACHE / "engine")
    engine.start()
    try:
        _build_busybox(engine)
        _import_node(engine)
        _say("building pcc-runner:latest")
        engine.docker(
            *("build", "-q", "--network", "host", "-t", "pcc-runner:latest"),
            *("-f", RUNNER / "Dockerfile.pcc-runner", RUNNER),
        )
        # Every VM would clone the unnamed images of an earlier recipe.
        engine.docker("image", "prune", "-f")
    finally:
        engine.stop()


def _begin_with_the_last() -> None:
    """Begin with the layers of the newest other recipe, which are this build's cache: it costs no space."""
    others = [path for path in CACHE.glob("docker*") if (path / "image").is_dir() and path != TEMPLATE]
    if others and not TEMPLATE.exists():
        newest = max(others, key=lambda path: path.stat().st_mtime)
        copy_images(newest, TEMPLATE)
        if (newest / NODE_STAMP).exists():
            shutil.copy(newest / NODE_STAMP, TEMPLATE / NODE_STAMP)


def _build_busybox(engine: Engine) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(shutil.which("busybox") or "busybox", Path(folder, "busybox"))
        Path(folder, "Dockerfile").write_text(BB_DOCKERFILE)
        engine.docker("build", "-q", "-t", "bb:latest", folder)


def _import_node(engine: Engine) -> None:
    root, recipe = CACHE / "node-root", NODE_WHEEL + (HERE / "base-rootfs.sh").read_text()
    if "node:20-slim" in engine.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}") and _stamped(recipe):
        return
    debootstrap(root)
    with tempfile.TemporaryDirectory() as folder:
        pip = (sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:")
        call(*pip, "-d", folder, NODE_WHEEL)
        for wheel in Path(folder).glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(folder)
        call(HERE / "base-rootfs.sh", root, folder)
    _say("importing node:20-slim")
    changes = [
        "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "ENV NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt",
        'ENTRYPOINT ["docker-entrypoint.sh"]',
        'CMD ["node"]',
    ]
    options = " ".join(f"--change {shlex.quote(change)}" for change in changes)
    tar = f"tar -C {root} --numeric-owner --exclude=./dev/* --exclude=./proc/* --exclude=./sys/* -c ."
    call("bash", "-ec", f"set -o pipefail; {tar} | docker -H {engine.url} import {options} - node:20-slim")
    shutil.rmtree(root)
    (TEMPLATE / NODE_STAMP).write_text(recipe)


def _stamped(recipe: str) -> bool:
    stamp = TEMPLATE / NODE_STAMP
    return stamp.exists() and stamp.read_text() == recipe


def _os_release(name: str) -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        key, _, value = line.partition("=")
        if key == name:
            return value.strip('"')
    raise BedError(f"/etc/os-release has no {name}")


def _mirror() -> str:
    """Return the mirror that this machine's own apt uses."""
    for source in (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")):
        lines = source.read_text().splitlines() if source.exists() else []
        for word in " ".join(line for line in lines if not line.startswith("#")).split():
            if word.startswith(("http://", "https://")):
                return word
    raise BedError("found no mirror in /etc/apt")


def _say(words: str) -> None:
    print(f"testbed: {words}", file=sys.stderr, flush=True)
