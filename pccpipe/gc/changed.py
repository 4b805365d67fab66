"""Finds what changed on a VM since `provision`: images with another id, and start-up files of the login."""

from __future__ import annotations

from collections.abc import Iterator

from pccpipe.docker_api.engine import DockerEngine
from pccpipe.layout import SystemDir
from pccpipe.machine.base import Machine
from pccpipe.machine.provisioned import Provisioned, read_provisioned
from pccpipe.machine.retry import UNREACHABLE
from pccpipe.machine.startup import changed, startup_files

SHORT = 19
"""Characters of an id that people compare: `sha256:` and twelve."""


def changes(machine: Machine, root: str, engine: DockerEngine | None) -> list[str]:
    """Return a sentence for each change; none without a record of provision. Raises `Unavailable`."""
    known = read_provisioned(machine, root)
    if known is None:
        return []
    if known.problem:
        return [f"{SystemDir.on_vm(root).provisioned} cannot be compared with: {known.problem}"]
    files = [f"{words} since provision" for words in changed(known.startup_files, startup_files(machine))]
    return [*files, *_images(known, engine)]


def other_image(known: Provisioned | None, name: str, found: str | None) -> str:
    """Return a sentence if an image is not the one that provision built; empty if it is, or if unknown."""
    built = known.images.get(name) if known else None
    if not built or not found or built == found:
        return ""
    return f"{name} is {found[:SHORT]}, and not what provision built ({built[:SHORT]})"


def _images(known: Provisioned, engine: DockerEngine | None) -> Iterator[str]:
    for name in known.images:
        try:
            found = engine.image_id(name) if engine else None
        except UNREACHABLE:
            return  # another check reports an engine that does not answer
        if words := other_image(known, name, found):
            yield words
