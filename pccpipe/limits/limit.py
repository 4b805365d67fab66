"""One limit: its figure, its reason, and the sentence for data that exceeds it."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from pccpipe.outcome import Code


class Unit(StrEnum):
    """The unit that a limit counts."""

    BYTES = "bytes"
    COUNT = "count"
    SECONDS = "seconds"


class Limit(Struct, frozen=True):
    """One limit. `most` is still allowed."""

    of: str
    """The thing that it limits, as the beginning of a sentence: `a step's result`."""
    most: int
    unit: Unit
    why: str
    """The reason for the figure, in a sentence."""
    change: str = ""
    """The setting with which a user changes it; empty if it is fixed."""
    code: Code = Code.LIMIT_EXCEEDED

    @property
    def figure(self) -> str:
        """The figure with its unit: `4 MiB`, `64`, `30 s`."""
        if self.unit is Unit.SECONDS:
            return f"{self.most} s"
        if self.unit is Unit.BYTES:
            for size, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
                if self.most >= size and self.most % size == 0:
                    return f"{self.most // size} {name}"
            return f"{self.most:,} bytes"
        return f"{self.most:,}"

    def exceeded(self, where: str = "") -> str:
        """Return the one sentence for data that exceeds it. `where` names the thing, in place of `of`."""
        fix = f"; fix: {self.change}" if self.change else ""
        return f"{where or self.of} exceeds the limit of {self.figure}{fix}"
