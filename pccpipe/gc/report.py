"""What `gc` did: the fate of each thing, and the sums of a site."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from msgspec import Struct, field

from pccpipe.gc.decide import Decision, Thing

if TYPE_CHECKING:
    from pccpipe.gc.look import Site


class Fate(Enum):
    STAYS = "stays"
    WOULD_GO = "would go"
    GONE = "gone"
    FAILED = "failed"
    REVIVED = "revived"
    """Something of its run began while we were about to remove it."""


class Removal(Struct, frozen=True):
    """What became of one thing. `freed` is in bytes; `words` say why it could not be removed."""

    thing: Thing
    verdict: Decision
    fate: Fate
    freed: int = 0
    words: str = ""


class Other(Struct, frozen=True):
    """What became of something that is of no run, in a sentence."""

    words: str
    fate: Fate


class Collected(Struct):
    """What became of everything at a site, and what is none of ours."""

    site: Site
    outcomes: list[Removal] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    others: list[Other] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """What is wrong with the machine and not for gc to change, in sentences."""
    free: int | None = None
    """Bytes on the disk of the runs' folders, after all."""
    engine_free: int | None = None
    """Bytes on the engine's disk, if it is another one."""

    @property
    def freed(self) -> int:
        return sum(outcome.freed for outcome in self.outcomes)

    @property
    def has_failed(self) -> bool:
        fates = [*(outcome.fate for outcome in self.outcomes), *(other.fate for other in self.others)]
        return bool(self.problems) or Fate.FAILED in fates


class GcReport(Struct, frozen=True):
    """What became of everything at a project's sites.

    Attributes:
        sites: one for each site, the VM's first.
        unknown: ids of runs to discard of which nothing was found.
    """

    sites: tuple[Collected, ...]
    unknown: tuple[str, ...] = ()

    @property
    def has_failed(self) -> bool:
        return bool(self.unknown) or any(collected.has_failed for collected in self.sites)
