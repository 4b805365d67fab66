"""Shows what the doctor found: as lines, live on a terminal, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol, TextIO

from rich.console import Console

from pccpipe.checkup.check import CheckResult, CheckVerdict, DoctorReport, Fix, FixPlace, FixResult
from pccpipe.values import Json
from pccpipe.views.board import Line, cut_line
from pccpipe.views.live import Painter
from pccpipe.views.text import harmless_line

NAME_WIDTH = 15
MANY_SKIPPED = 3
"""Checks that wait for the same one, from which on one line counts them."""
_STYLES = {
    CheckVerdict.OK: ("ok", "green"),
    CheckVerdict.WARNING: ("warning", "yellow"),
    CheckVerdict.WRONG: ("WRONG", "bold red"),
    CheckVerdict.SKIPPED: ("-", "dim"),
}


class CheckupView(Protocol):
    """Shows the results of checks as they come."""

    def checked(self, result: CheckResult) -> None: ...

    def fixed(self, result: FixResult) -> None: ...

    def close(self, report: DoctorReport) -> None: ...


def report_lines(report: DoctorReport) -> list[Line]:
    """Return the whole report."""
    lines: list[Line] = [((harmless_line(report.subject), "bold"),)]
    skipped = Counter(each.finding.needs for each in report.checks if each.finding.needs)
    for result in report.checks:
        if skipped[result.finding.needs] < MANY_SKIPPED:
            lines += _result_lines(result, on_vm=report.on_vm)
    for name, count in skipped.items():
        if count >= MANY_SKIPPED:
            lines.append(((f"{'-':<9}", "dim"), (f"{count} checks skipped until {name} is ok", "dim")))
    lines.append((("", ""),))
    lines.append(((_sum(report), ""),))
    return lines


def fixed_line(result: FixResult) -> str:
    """Say what was fixed, or could not be."""
    words = f": {harmless_line(result.words)}" if result.words else ""
    return f"{'fixed' if result.succeeded else 'NOT fixed'}  {result.name}: {harmless_line(result.command)}{words}"


def json_report(report: DoctorReport) -> dict[str, Json]:
    """Return the report as data, for programs."""
    return {
        "subject": report.subject,
        "exit_status": report.exit_status,
        "reachable": report.is_reachable,
        "checks": [
            {
                "name": each.name,
                "verdict": each.finding.verdict.value,
                "words": each.finding.words,
                "mend": _json_fix(each.finding.fix),
                "seconds": each.seconds,
            }
            for each in report.checks
        ],
        "mended": [
            {"name": each.name, "command": each.command, "words": each.words, "succeeded": each.succeeded}
            for each in report.fixes
        ],
    }


class PlainCheckup:
    """Prints each fix at once, and the report at the end."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def checked(self, result: CheckResult) -> None:
        """Print nothing yet: after a fix, all checks run again."""

    def fixed(self, result: FixResult) -> None:
        self._print([fixed_line(result)])

    def close(self, report: DoctorReport) -> None:
        self._print("".join(text for text, _ in line) for line in report_lines(report))

    def _print(self, lines: Iterable[str]) -> None:
        for line in lines:
            print(line, file=self._stream, flush=True)


class LiveCheckup:
    """Paints all checks on a terminal, and fills in each result as it comes. Called by one thread.

    Args:
        names: of all checks, in their order.
    """

    def __init__(self, stream: TextIO, names: Sequence[str]) -> None:
        self._console = Console(file=stream, highlight=False)
        self._painter = Painter(stream, self._console)
        self._names = names
        self._done: dict[str, CheckResult] = {}
        self._fixes: list[Line] = []
        self._paint()

    def checked(self, result: CheckResult) -> None:
        if result.name in self._done:
            # After a fix, all checks run again.
            self._done.clear()
        self._done[result.name] = result
        self._paint()

    def fixed(self, result: FixResult) -> None:
        self._fixes.append(((fixed_line(result), "green" if result.succeeded else "bold red"),))
        self._paint()

    def close(self, report: DoctorReport) -> None:
        self._painter.leave([*self._fixes, *report_lines(report)])

    def _paint(self) -> None:
        width, height = self._console.size
        lines: list[Line] = [*self._fixes]
        for name in self._names:
            result = self._done.get(name)
            lines.append(_first_line(result) if result else (("…        ", "dim"), (name, "dim")))
        self._painter.paint([cut_line(line, width - 1) for line in lines[: max(3, height - 1)]], (width, height))


def _result_lines(result: CheckResult, *, on_vm: bool) -> list[Line]:
    lines = [_first_line(result)]
    fix = result.finding.fix
    if fix:
        where = " on the VM" if on_vm and fix.where is FixPlace.THERE else ""
        lines.append(((f"{'':9}fix{where}: ", ""), (harmless_line(fix.command), "cyan")))
    return lines


def _first_line(result: CheckResult) -> Line:
    word, style = _STYLES[result.finding.verdict]
    quiet = "dim" if result.finding.verdict is CheckVerdict.SKIPPED else ""
    words = harmless_line(" ".join(result.finding.words.split()))
    return ((f"{word:<9}", style), (f"{result.name:<{NAME_WIDTH}}", quiet), (words, quiet))


def _sum(report: DoctorReport) -> str:
    if not report.is_reachable:
        return "the VM cannot be reached"
    wrong, warnings = report.count(CheckVerdict.WRONG), report.count(CheckVerdict.WARNING)
    parts = (
        [f"{wrong} wrong", f"{warnings} warning{'' if warnings == 1 else 's'}"]
        if wrong or warnings
        else ["all is fine"]
    )
    safe = any(each.finding.fix and each.finding.fix.is_safe for each in report.checks)
    return ", ".join(parts) + ("; fix all that is safe to fix: pccpipe doctor --fix" if safe else "")


def _json_fix(fix: Fix | None) -> Json:
    return {"command": fix.command, "where": fix.where.value, "safe": fix.is_safe} if fix else None
