"""Shows what `selfcheck --escape` found, line by line."""

from __future__ import annotations

from collections.abc import Iterator

from pccpipe.canary.routes import EscapeReport, RouteVerdict
from pccpipe.views.text import harmless_line


def lines(report: EscapeReport) -> Iterator[str]:
    """Yield a line for each route, and the sum."""
    width = max(len(verdict.value) for verdict in RouteVerdict)
    side = ""
    for route in report.routes:
        if route.side != side:
            side = route.side
            yield f"{side} tries to"
        words = f": {route.words}" if route.words else ""
        yield harmless_line(f"  {route.verdict.value:<{width}}  {route.text}{words}")
    yield ""
    if not report.whole:
        why = f": {report.message}" if report.message else ""
        yield harmless_line(f"the run ended as {report.status}{why}; later routes were not tried")
    held, broke = report.count(RouteVerdict.HELD), report.count(RouteVerdict.BROKE)
    tried = f"{held} of {held + broke} routes held"
    missed = report.count(RouteVerdict.NOT_TRIED)
    yield f"{tried}; {missed} were not tried" if missed else tried
