"""Containers that live beside a step or group, as a pipeline describes them."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

from pccpipe.limits import SERVICE_LOG
from pccpipe.spec.expression import Template
from pccpipe.spec.position import Position
from pccpipe.spec.ready import Ready

CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "SETGID", "SETUID")
"""The default: an entrypoint that begins as root gives the data folder to its own user, and becomes that user.

DAC_OVERRIDE lets it look into the data folder once that belongs to another user.
"""


class Service(Struct, frozen=True):
    """A container that lives beside a step or group, as the pipeline describes it."""

    name: str
    image: Template
    position: Position
    env: Mapping[str, Template] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    command: tuple[Template, ...] | None = None
    """Replaces the image's own command; None: the image's own."""
    ports: tuple[int, ...] = ()
    ready: Ready | None = None
    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None
    shm_size: int | None = None
    capabilities: tuple[str, ...] = CAPABILITIES
    network: str = "none"
    """`none` or `bridge`."""
    log_limit: int = SERVICE_LOG.most

    @property
    def loosened(self) -> tuple[str, ...]:
        """Name the settings that are looser than those of a step's container, as people write them."""
        loose = {
            f"capabilities: [{', '.join(self.capabilities)}]": bool(self.capabilities),
            f"network: {self.network}": self.network != "none",
            "memory: unlimited": self.memory is None,
            "pids: unlimited": self.pids is None,
        }
        return tuple(text for text, is_so in loose.items() if is_so)
