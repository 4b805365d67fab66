"""Records what was searched and found: a row for each place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

from msgspec import Struct, field

from pccpipe import layout
from pccpipe.canary.value import Canary
from pccpipe.outcome import Outcome
from pccpipe.values import Json

SHOWN = 20
"""Findings that a row names; a leak into every file needs no thousand lines."""


class Spot(StrEnum):
    """Name a place that is searched, on some machine."""

    ARGUMENTS = "arguments of processes"
    ENVIRONMENT = "environment of processes"
    OWN_ENVIRONMENT = "environment of the steps' own processes"
    WORKSPACE = "workspace"
    STATE = "what is kept of commands"
    SPOOLS = "output on its way to this machine"
    DISK = "the rest of the disk"
    TEMPORARY = "temporary files"
    CONTAINER_PROCESSES = "container: processes"
    INSPECT = "container: docker inspect"
    CONTAINER_DISK = "container: its own disk"
    CONTAINER_MEMORY = "container: its home, in memory"
    ENGINE_FILES = "the engine's files"
    IMAGES = "images: config and history"
    RUN_JSON = layout.RUN_JSON
    EVENTS = layout.EVENTS
    LOGS = layout.LOGS
    DIFF = "diff.patch"
    RESULTS = "results"
    ARTIFACTS = layout.ARTIFACTS
    RECORD = "the rest of the record"
    JSONL = "output of --format jsonl"
    PLAIN = "output of --format plain"
    EXCEPTIONS = "errors and tracebacks"


class SpotVerdict(StrEnum):
    """Say what the search of a place found."""

    CLEAN = "clean"
    EXPECTED = "expected"
    """The canary is only where the pipeline itself put it."""
    FOUND = "FOUND"
    PARTLY = "partly looked"
    """Nothing was found, but some of the place could not be searched."""
    NOT_LOOKED = "could not look"


class Row(Struct):
    """Hold one place. The counts are those of the search that saw most."""

    where: str
    """The machine: `here`, or the VM's address."""
    spot: Spot
    unit: str
    looks: int = 0
    things: int = 0
    size: int = 0
    """In bytes, where that is known."""
    found: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    """Reasons why some of the place, or all of it, was not searched."""

    @property
    def verdict(self) -> SpotVerdict:
        if self.found:
            return SpotVerdict.FOUND
        if self.unread:
            return SpotVerdict.PARTLY if self.things else SpotVerdict.NOT_LOOKED
        if not self.looks:
            return SpotVerdict.NOT_LOOKED
        return SpotVerdict.EXPECTED if self.expected else SpotVerdict.CLEAN

    def as_json(self) -> dict[str, Json]:
        """Return the row for programs."""
        return {
            "where": self.where,
            "place": self.spot.name.lower(),
            "words": self.spot.value,
            "verdict": self.verdict.name.lower(),
            "looks": self.looks,
            "things": self.things,
            "unit": self.unit,
            "bytes": self.size,
            "found": list(self.found),
            "expected": list(self.expected),
            "unread": list(self.unread),
        }


class Ledger:
    """Hold the rows, in the order in which their places were first named. One thread at a time."""

    def __init__(self, canary: Canary) -> None:
        self._canary = canary
        self._rows: dict[tuple[str, Spot], Row] = {}

    @property
    def rows(self) -> Sequence[Row]:
        return tuple(self._rows.values())

    def name(self, where: str, spots: Iterable[Spot], unit: str) -> None:
        """Name places that must be searched; until then they count as not searched."""
        for spot in spots:
            self._rows.setdefault((where, spot), Row(where, spot, unit))

    def looked(self, where: str, spot: Spot, things: int, size: int = 0) -> None:
        """Record how much of a place was searched."""
        row = self._rows[where, spot]
        row.looks += 1
        row.things, row.size = max(row.things, things), max(row.size, size)

    def found(self, where: str, spot: Spot, what: str) -> None:
        """Record that the canary is there, and must not be."""
        self._add(self._rows[where, spot].found, what)

    def expected(self, where: str, spot: Spot, what: str) -> None:
        """Record that the canary is there because the pipeline put it there."""
        self._add(self._rows[where, spot].expected, what)

    def unread(self, where: str, spot: Spot, why: str) -> None:
        """Record why some of the place, or all of it, could not be searched."""
        self._add(self._rows[where, spot].unread, why)

    def _add(self, lines: list[str], text: str) -> None:
        masked = self._canary.masked(text)
        if masked not in lines and len(lines) < SHOWN:
            lines.append(masked)


class SelfcheckReport(Struct, frozen=True):
    """Say what a check found. `outcome` and `message` are the run's."""

    rows: Sequence[Row]
    outcome: Outcome | None
    status: str
    message: str
    whole: bool
    """True if the run reached its end."""

    def count(self, *verdicts: SpotVerdict) -> int:
        """Count the rows with one of these verdicts."""
        return sum(row.verdict in verdicts for row in self.rows)

    @property
    def found(self) -> int:
        """The number of places that had the secret and must not."""
        return self.count(SpotVerdict.FOUND)

    @property
    def unlooked(self) -> int:
        """The number of places that could not be searched completely."""
        return self.count(SpotVerdict.PARTLY, SpotVerdict.NOT_LOOKED)

    def as_json(self) -> dict[str, Json]:
        """Return the report for programs."""
        return {
            "clean": not self.found and self.whole,
            "found": self.found,
            "unlooked": self.unlooked,
            "run": {"status": self.status, "message": self.message, "whole": self.whole},
            "rows": [row.as_json() for row in self.rows],
        }
