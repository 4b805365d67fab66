"""Make the image with the agents of examples/agents, in a Docker data folder of its own: other VMs stay small."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from tests.testbed import images
from tests.testbed.engine import Engine, copy_images
from tests.testbed.place import CACHE, HERE, locked
from tests.testbed.recipe import TEMPLATE

NAME = "user-agents:latest"
_DOCKERFILE = HERE / "Dockerfile.user-agents"


def ensure() -> Path:
    """Return a template with the image; make it if it is missing."""
    images.ensure()
    recipe = hashlib.sha256(TEMPLATE.name.encode() + _DOCKERFILE.read_bytes()).hexdigest()
    template = CACHE / f"agents-{recipe[:8]}"
    with locked("images"):
        if not template.exists():
            part = template.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            copy_images(TEMPLATE, part)
            engine = Engine(part, CACHE / "engine")
            engine.start()
            try:
                engine.docker("build", "-q", "--network", "host", "-t", NAME, "-f", _DOCKERFILE, HERE)
            finally:
                engine.stop()
            part.rename(template)
    return template
