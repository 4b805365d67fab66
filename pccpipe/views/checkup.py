"""What the doctor found, as lines, live on a terminal, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol, TextIO

from rich.console import Console

from pccpipe.checkup.check import CheckVerdict, DoctorReport, Fix, Fixed, FixPlace, Looked
from pccpipe.values import Json
from pccpipe.views.board import Line
from pccpipe.views.live import Painter
from pccpipe.views.text import harmless_line, shorten

NAME_WIDTH = 15
MANY_SKIPPED = 3
"""Checks that were skipped for the same reason and are counted in one line."""
_STYLES = {
    CheckVerdict.OK: ("ok", "green"),
    CheckVerdict.WARNING: ("warning", "yellow"),
    CheckVerdict.WRONG: ("WRONG", "bold red"),
    CheckVerdict.SKIPPED: ("-", "dim"),
}


class CheckupView(Protocol):
    """Is told of the checks as they are done."""

    def looked(self, looked: Looked) -> None: ...

    def mended(self, mended: Fixed) -> None: ...

    def close(self, report: DoctorReport) -> None: ...


def report_lines(report: DoctorReport) -> list[Line]:
    """The whole report."""
    lines: list[Line] = [((harmless_line(report.subject), "bold"),)]
    behind = Counter(each.finding.needs for each in report.looked if each.finding.needs)
    for looked in report.looked:
        if behind[looked.finding.needs] < MANY_SKIPPED:
            lines += _looked_lines(looked)
    for name, count in behind.items():
        if count >= MANY_SKIPPED:
            lines.append(((f"{'-':<9}", "dim"), (f"{count} checks skipped until {name} is ok", "dim")))
    lines.append((("", ""),))
    lines.append(((_sum(report), ""),))
    return lines


def mended_line(mended: Fixed) -> str:
    """What was mended, or could not be."""
    said = f": {harmless_line(mended.words)}" if mended.words else ""
    return f"{'mended' if mended.succeeded else 'NOT mended'}  {mended.name}: {harmless_line(mended.command)}{said}"


def json_report(report: DoctorReport) -> dict[str, Json]:
    """The report for a program."""
    return {
        "subject": report.subject,
        "exit_status": report.exit_status,
        "reachable": report.is_reachable,
        "checks": [
            {
                "name": each.name,
                "verdict": each.finding.verdict.value,
                "words": each.finding.words,
                "mend": _json_mend(each.finding.mend),
                "seconds": each.seconds,
            }
            for each in report.looked
        ],
        "mended": [
            {"name": each.name, "command": each.command, "words": each.words, "succeeded": each.succeeded}
            for each in report.mended
        ],
    }


class PlainCheckup:
    """Lines, at the end; what was mended is said at once."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def looked(self, looked: Looked) -> None:
        """Nothing yet: after something was mended all is looked at anew."""

    def mended(self, mended: Fixed) -> None:
        self._tell([mended_line(mended)])

    def close(self, report: DoctorReport) -> None:
        self._tell("".join(text for text, _ in line) for line in report_lines(report))

    def _tell(self, lines: Iterable[str]) -> None:
        for line in lines:
            print(line, file=self._stream, flush=True)


class LiveCheckup:
    """All checks on a terminal, each filled in as it is done. Called by one thread.

    Args:
        names: of all checks, in their order.
    """

    def __init__(self, stream: TextIO, names: Sequence[str]) -> None:
        self._console = Console(file=stream, highlight=False)
        self._painter = Painter(stream, self._console)
        self._names = names
        self._done: dict[str, Looked] = {}
        self._mended: list[Line] = []
        self._paint()

    def looked(self, looked: Looked) -> None:
        if looked.name in self._done:
            # Something was mended: all is looked at anew.
            self._done.clear()
        self._done[looked.name] = looked
        self._paint()

    def mended(self, mended: Fixed) -> None:
        self._mended.append(((mended_line(mended), "green" if mended.succeeded else "bold red"),))
        self._paint()

    def close(self, report: DoctorReport) -> None:
        self._painter.leave([*self._mended, *report_lines(report)])

    def _paint(self) -> None:
        width, height = self._console.size
        lines: list[Line] = [*self._mended]
        for name in self._names:
            looked = self._done.get(name)
            lines.append(_first_line(looked) if looked else (("…        ", "dim"), (name, "dim")))
        self._painter.paint([_fit(line, width - 1) for line in lines[: max(3, height - 1)]], (width, height))


def _looked_lines(looked: Looked) -> list[Line]:
    lines = [_first_line(looked)]
    mend = looked.finding.mend
    if mend:
        where = "on this machine" if mend.where is FixPlace.HERE else "there"
        lines.append(((f"{'':9}fix, {where}: ", ""), (harmless_line(mend.command), "cyan")))
    return lines


def _first_line(looked: Looked) -> Line:
    word, style = _STYLES[looked.finding.verdict]
    quiet = "dim" if looked.finding.verdict is CheckVerdict.SKIPPED else ""
    words = harmless_line(" ".join(looked.finding.words.split()))
    return ((f"{word:<9}", style), (f"{looked.name:<{NAME_WIDTH}}", quiet), (words, quiet))


def _fit(line: Line, width: int) -> Line:
    fitted: list[tuple[str, str]] = []
    for text, style in line:
        fitted.append((shorten(text, width), style))
        width -= len(text)
        if width <= 0:
            break
    return tuple(fitted)


def _sum(report: DoctorReport) -> str:
    if not report.is_reachable:
        return "the VM cannot be reached"
    wrong, warnings = report.count(CheckVerdict.WRONG), report.count(CheckVerdict.WARNING)
    parts = (
        [f"{wrong} wrong", f"{warnings} warning{'' if warnings == 1 else 's'}"]
        if wrong or warnings
        else ["all is fine"]
    )
    safe = any(each.finding.mend and each.finding.mend.is_safe for each in report.looked)
    return ", ".join(parts) + ("; pccpipe doctor --fix mends what can be mended without harm" if safe else "")


def _json_mend(mend: Fix | None) -> Json:
    return {"command": mend.command, "where": mend.where.value, "safe": mend.is_safe} if mend else None
