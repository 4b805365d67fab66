"""A check as data: what it looks at, what it finds, and the fix for that."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

if TYPE_CHECKING:
    from pccpipe.checkup.context import CheckContext


class CheckVerdict(StrEnum):
    """Say how a check ended."""

    OK = "ok"
    WARNING = "warning"
    """Runs work, but slower, or not for long, or only in part."""
    WRONG = "wrong"
    SKIPPED = "skipped"
    """Not run: something that it needs is wrong, or there is nothing to look at."""


class FixPlace(StrEnum):
    """Name the machine on which a person types a fix's command."""

    HERE = "here"
    THERE = "vm"
    """On the checked machine; without a VM, that is this machine."""


class Fix(Struct, frozen=True):
    """Name the one command that repairs what was found.

    Args:
        is_safe: it takes nothing away, so that `--fix` may do it.
        do: what `--fix` calls instead of `command`; returns what it did, in words. Raises PccpipeError, OSError.
    """

    command: str
    where: FixPlace = FixPlace.THERE
    is_safe: bool = False
    do: Callable[[CheckContext], str] | None = None


class Finding(Struct, frozen=True):
    """Say what one check found, and its fix."""

    verdict: CheckVerdict
    words: str
    fix: Fix | None = None
    needs: str = ""
    """The name of the check for which this one was skipped."""


class Check(Struct, frozen=True):
    """Look at one thing, and make one line of the doctor's report.

    Args:
        needs: names of the checks that must be fine before this one has anything to look at.
        limit: seconds that it may take.
    """

    name: str
    look: Callable[[CheckContext], Finding]
    needs: tuple[str, ...] = ()
    limit: float = 20.0

    def after(self, *names: str) -> Check:
        """Return the same check, which needs others as well."""
        return replace(self, needs=(*names, *self.needs))


class CheckResult(Struct, frozen=True):
    """Say what a check found, and in how many seconds."""

    name: str
    finding: Finding
    seconds: float = 0.0

    @property
    def is_fine(self) -> bool:
        return self.finding.verdict in {CheckVerdict.OK, CheckVerdict.WARNING}


class FixResult(Struct, frozen=True):
    """Say what `--fix` did for a check: the command, and its result in words."""

    name: str
    command: str
    words: str
    succeeded: bool


class DoctorReport(Struct, frozen=True):
    """List what all checks found, and what `--fix` did before that.

    Attributes:
        subject: the checked machine, in words.
        on_vm: whether that machine is a VM.
        checks: the results, in the order of the checks.
        fixes: what `--fix` did, also what failed.
    """

    subject: str
    checks: tuple[CheckResult, ...]
    fixes: tuple[FixResult, ...] = ()
    is_reachable: bool = True
    on_vm: bool = False

    @property
    def exit_status(self) -> int:
        """The command's: 0 all is fine, or has warnings; 1 something is wrong; 3 the VM can't be reached."""
        if not self.is_reachable:
            return 3
        return 1 if self.count(CheckVerdict.WRONG) else 0

    def count(self, verdict: CheckVerdict) -> int:
        """Count the checks with this verdict."""
        return sum(each.finding.verdict is verdict for each in self.checks)

    def __getitem__(self, name: str) -> Finding:
        return next(each.finding for each in self.checks if each.name == name)


def ok(words: str) -> Finding:
    return Finding(CheckVerdict.OK, words)


def warning(words: str, fix: Fix | None = None) -> Finding:
    return Finding(CheckVerdict.WARNING, words, fix)


def wrong(words: str, fix: Fix | None = None) -> Finding:
    return Finding(CheckVerdict.WRONG, words, fix)


def skipped(words: str, needs: str = "") -> Finding:
    return Finding(CheckVerdict.SKIPPED, words, needs=needs)
