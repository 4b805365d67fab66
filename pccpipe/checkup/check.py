"""A check as data: what it looks at, what it finds, and what mends that."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

if TYPE_CHECKING:
    from pccpipe.checkup.patient import Patient


class CheckVerdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    """Runs work, but slower, or not for long, or only in part."""
    WRONG = "wrong"
    SKIPPED = "skipped"
    """Not looked at, because something that it needs is wrong, or because there is nothing to look at."""


class FixPlace(StrEnum):
    """Where a mend's command is to be typed."""

    HERE = "here"
    THERE = "vm"
    """On the machine that was looked at; that is this one where the project has no VM."""


class Fix(Struct, frozen=True):
    """The one command that mends what was found.

    Args:
        is_safe: it takes nothing from anybody, so that `--fix` may do it.
        do: how `--fix` does it, where that is not to run `command` on the machine; what it did, in words. Raises
            PccpipeError, OSError.
    """

    command: str
    where: FixPlace = FixPlace.THERE
    is_safe: bool = False
    do: Callable[[Patient], str] | None = None


class Finding(Struct, frozen=True):
    verdict: CheckVerdict
    words: str
    mend: Fix | None = None
    needs: str = ""
    """The name of the check that must be fine first, of one that was skipped for it."""


class Check(Struct, frozen=True):
    """One line of the doctor's.

    Args:
        needs: the names of checks without which there is nothing to look at.
        limit: seconds that it may take.
    """

    name: str
    look: Callable[[Patient], Finding]
    needs: tuple[str, ...] = ()
    limit: float = 20.0

    def after(self, *names: str) -> Check:
        """The same check, which needs others as well."""
        return replace(self, needs=(*names, *self.needs))


class Looked(Struct, frozen=True):
    """What a check has found. `seconds` is how long it took."""

    name: str
    finding: Finding
    seconds: float = 0.0

    @property
    def is_fine(self) -> bool:
        return self.finding.verdict in {CheckVerdict.OK, CheckVerdict.WARNING}


class Fixed(Struct, frozen=True):
    """What `--fix` did for a check: the command, what came of it in words, and whether it went well."""

    name: str
    command: str
    words: str
    succeeded: bool


class DoctorReport(Struct, frozen=True):
    """All that was found, in the order of the checks; and what was mended before it was."""

    subject: str
    """Which machine that is, in words."""
    looked: tuple[Looked, ...]
    mended: tuple[Fixed, ...] = ()
    is_reachable: bool = True

    @property
    def exit_status(self) -> int:
        """The command's: 0 all is fine, or has warnings; 1 something is wrong; 3 the VM can't be reached."""
        if not self.is_reachable:
            return 3
        return 1 if self.count(CheckVerdict.WRONG) else 0

    def count(self, verdict: CheckVerdict) -> int:
        return sum(each.finding.verdict is verdict for each in self.looked)

    def __getitem__(self, name: str) -> Finding:
        return next(each.finding for each in self.looked if each.name == name)


def ok(words: str) -> Finding:
    return Finding(CheckVerdict.OK, words)


def warning(words: str, mend: Fix | None = None) -> Finding:
    return Finding(CheckVerdict.WARNING, words, mend)


def wrong(words: str, mend: Fix | None = None) -> Finding:
    return Finding(CheckVerdict.WRONG, words, mend)


def skipped(words: str, needs: str = "") -> Finding:
    return Finding(CheckVerdict.SKIPPED, words, needs=needs)
