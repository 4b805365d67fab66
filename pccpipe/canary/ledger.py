"""What was looked at, and what was found: a row for each place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

from msgspec import Struct, field

from pccpipe import layout
from pccpipe.canary.value import Canary
from pccpipe.outcome import Outcome
from pccpipe.values import Json

SHOWN = 20
"""Findings that a row names; a leak into every file need not be told a thousand times."""


class Spot(StrEnum):
    """A place that is looked at, on some machine."""

    ARGUMENTS = "arguments of processes"
    ENVIRONMENT = "environment of processes"
    OWN_ENVIRONMENT = "environment of the steps' own processes"
    WORKSPACE = "workspace"
    STATE = "what is kept of commands"
    SPOOLS = "output on its way home"
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
    CLEAN = "clean"
    EXPECTED = "expected"
    """It is where the pipeline itself put it, and no further."""
    FOUND = "FOUND"
    PARTLY = "partly looked"
    """Nothing was found, but not all of it could be looked at."""
    NOT_LOOKED = "could not look"


class Row(Struct):
    """One place. The counts are those of the look that saw most."""

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
    """Why not all of it, or nothing, was looked at."""

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
        """For programs."""
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
    """The rows, in the order in which their places were first named. One thread at a time."""

    def __init__(self, canary: Canary) -> None:
        self._canary = canary
        self._rows: dict[tuple[str, Spot], Row] = {}

    @property
    def rows(self) -> Sequence[Row]:
        return tuple(self._rows.values())

    def name(self, where: str, spots: Iterable[Spot], unit: str) -> None:
        """These places are to be looked at; until they are, they count as not looked at."""
        for spot in spots:
            self._rows.setdefault((where, spot), Row(where, spot, unit))

    def looked(self, where: str, spot: Spot, things: int, size: int = 0) -> None:
        """So much of a place was looked at."""
        row = self._rows[where, spot]
        row.looks += 1
        row.things, row.size = max(row.things, things), max(row.size, size)

    def found(self, where: str, spot: Spot, what: str) -> None:
        """It is there, and must not be."""
        self._note(self._rows[where, spot].found, what)

    def expected(self, where: str, spot: Spot, what: str) -> None:
        """It is there, as the pipeline has it."""
        self._note(self._rows[where, spot].expected, what)

    def unread(self, where: str, spot: Spot, why: str) -> None:
        """Some of the place, or all of it, could not be looked at."""
        self._note(self._rows[where, spot].unread, why)

    def _note(self, notes: list[str], text: str) -> None:
        masked = self._canary.masked(text)
        if masked not in notes and len(notes) < SHOWN:
            notes.append(masked)


class SelfcheckReport(Struct, frozen=True):
    """What a check found. `outcome` and `message` are the run's."""

    rows: Sequence[Row]
    outcome: Outcome | None
    status: str
    message: str
    whole: bool
    """Whether the run came as far as it had to."""

    def count(self, *verdicts: SpotVerdict) -> int:
        """How many rows have one of these verdicts."""
        return sum(row.verdict in verdicts for row in self.rows)

    @property
    def found(self) -> int:
        """In how many places the secret was that must not have it."""
        return self.count(SpotVerdict.FOUND)

    @property
    def unlooked(self) -> int:
        """How many places could not be looked at, or not all of them."""
        return self.count(SpotVerdict.PARTLY, SpotVerdict.NOT_LOOKED)

    def as_json(self) -> dict[str, Json]:
        """For programs."""
        return {
            "clean": not self.found and self.whole,
            "found": self.found,
            "unlooked": self.unlooked,
            "run": {"status": self.status, "message": self.message, "whole": self.whole},
            "rows": [row.as_json() for row in self.rows],
        }
