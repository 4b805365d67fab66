"""Shows what `selfcheck` found, as a table."""

from __future__ import annotations

from collections.abc import Iterator

from pccpipe.canary.ledger import Row, SelfcheckReport, SpotVerdict
from pccpipe.views.text import harmless_line
from pccpipe.words import size


def lines(report: SelfcheckReport) -> Iterator[str]:
    """Yield a line for each place, with its findings below it, and the sum."""
    where = ""
    width = max(len(row.spot.value) for row in report.rows)
    for row in report.rows:
        if row.where != where:
            where = row.where
            yield f"{where}:"
        yield f"  {row.verdict.value:<14}  {row.spot.value:<{width}}  {_seen(row)}".rstrip()
        for found in row.found:
            yield harmless_line(f"      found: {found}")
        for why in row.unread:
            yield harmless_line(f"      not searched: {why}")
        if row.expected:
            yield harmless_line(f"      expected, by the pipeline: {', '.join(row.expected)}")
    yield ""
    yield from _sum(report)


def _seen(row: Row) -> str:
    if not row.looks:
        return ""
    unit = row.unit if row.things != 1 else row.unit.removesuffix("es" if row.unit.endswith("sses") else "s")
    counted = f"{row.things} {unit}" + (f", {size(row.size)}" if row.size else "")
    return f"{counted}, searched {row.looks} times" if row.looks > 1 else counted


def _sum(report: SelfcheckReport) -> Iterator[str]:
    if not report.whole:
        why = f": {report.message}" if report.message else ""
        yield harmless_line(f"the run with the canary ended as {report.status}{why}; later places were not checked")
    places = len(report.rows)
    looked = places - report.count(SpotVerdict.NOT_LOOKED)
    partly = report.count(SpotVerdict.PARTLY)
    yield f"{looked} of {places} places were searched" + (f", {partly} of them partly" if partly else "")
    if report.found:
        yield f"FOUND in {report.found} place{'' if report.found == 1 else 's'}"
    elif report.whole:
        yield "the secret was found only where it may be"
