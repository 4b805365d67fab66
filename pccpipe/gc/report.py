"""Defines the report of `gc`: the result for each thing, and the sums of a site."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from msgspec import Struct, field

from pccpipe.gc.decide import Decision, Thing

if TYPE_CHECKING:
    from pccpipe.gc.look import Site


class RemovalStatus(Enum):
    KEPT = "kept"
    PLANNED = "planned"
    REMOVED = "removed"
    FAILED = "failed"
    RESUMED = "resumed"
    """Kept: the run resumed just before the removal."""


class Removal(Struct, frozen=True):
    """The result for one thing. `freed` is in bytes; `words` say why pccpipe could not remove it."""

    thing: Thing
    decision: Decision
    status: RemovalStatus
    freed: int = 0
    words: str = ""


class OtherRemoval(Struct, frozen=True):
    """The result for something that belongs to no run, in a sentence."""

    words: str
    status: RemovalStatus


class SiteReport(Struct):
    """The results for everything at a site, and the names of things that pccpipe did not create."""

    site: Site
    removals: list[Removal] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    others: list[OtherRemoval] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Faults of the machine that gc must not repair, in sentences."""
    free: int | None = None
    """Free bytes on the disk of the runs' folders, after the removals."""
    engine_free: int | None = None
    """Free bytes on the engine's disk, if it is another one."""

    @property
    def freed(self) -> int:
        return sum(removal.freed for removal in self.removals)

    @property
    def has_failed(self) -> bool:
        statuses = [*(removal.status for removal in self.removals), *(other.status for other in self.others)]
        return bool(self.problems) or RemovalStatus.FAILED in statuses


class GcReport(Struct, frozen=True):
    """The results at all sites of a project.

    Attributes:
        sites: one for each site, the VM's first.
        unknown: ids of runs to discard of which nothing was found.
    """

    sites: tuple[SiteReport, ...]
    unknown: tuple[str, ...] = ()

    @property
    def has_failed(self) -> bool:
        return bool(self.unknown) or any(collected.has_failed for collected in self.sites)
