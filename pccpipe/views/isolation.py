"""What held a command, in lines for somebody who has to find out whether it was really isolated."""

from __future__ import annotations

from collections.abc import Iterator

from pccpipe.outcome import Place
from pccpipe.targets.base import ContainerSettings, Isolation
from pccpipe.views.text import harmless_line, memory


def account(had: Isolation) -> list[str]:
    """What a command had beside its place, user, limits and workspace, which `text.isolation` says."""
    lines = list(_outside(had)) if had.place is not Place.CONTAINER else list(_inside(had))
    return [harmless_line(line) for line in lines]


def asked(settings: ContainerSettings) -> list[str]:
    """What was asked of a container, and what of that is less hard than by default."""
    limits = {"memory": memory(settings.memory) if settings.memory else None, "cpus": settings.cpus}
    parts = [settings.image, f"network {settings.network}"]
    parts += [f"{name} {value or 'unlimited'}" for name, value in {**limits, "pids": settings.pids}.items()]
    parts += [f"runtime {settings.runtime}"] if settings.runtime else []
    parts += ["workspace read-only"] if settings.read_only_workspace else []
    parts += ["root file system read-only"] if settings.read_only_root else []
    lines = [f"asked for: container {', '.join(parts)}"]
    if settings.loosened:
        lines.append(f"loosened by the pipeline: {'; '.join(settings.loosened)}")
    return [harmless_line(line) for line in lines]


def _outside(had: Isolation) -> Iterator[str]:
    yield "no container around it: it had all that its user has there"
    if had.engine_at_hand:
        yield "the engine's socket was at hand, which is as good as root there"


def _inside(had: Isolation) -> Iterator[str]:
    if had.capabilities is None:
        yield "the engine could not be asked what it had"
        return
    names = ", ".join(had.capabilities) or "none"
    root = "read-only" if had.read_only_root else "writable"
    yield f"capabilities {names}; {', '.join(had.security) or 'no security options'}"
    init = "init" if had.init else "no init"
    yield f"runtime {had.runtime or 'unknown'}, {init}, root file system {root}"
    yield f"shared with {had.host}: {', '.join(had.shared) or 'nothing'}"
    for mount in had.mounts:
        yield f"mount {mount}"
