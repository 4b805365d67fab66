"""The variables that a command exported for later steps, as the record keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct


class ExportOrigin(StrEnum):
    """Where a command ran, by isolation; the least isolated is last."""

    CONTAINER = "container"
    ACCOUNT = "account"
    """On a VM, as the account of `run_as`."""
    VM = "vm"
    """On a VM, as the login."""
    LOCAL = "local"

    def reaches(self, other: ExportOrigin) -> bool:
        """Say whether a command there may get what a command here exported: only one with as much isolation may."""
        order = list(ExportOrigin)
        return order.index(other) <= order.index(self)


class Exported(Struct, frozen=True):
    """The variables of one command, with what later steps must know of it."""

    variables: Mapping[str, str]
    origin: ExportOrigin
    unattested: bool = False
    """True if a command on the VM could have forged them."""
