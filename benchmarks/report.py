"""Show measurements as a table and as a chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from benchmarks.measure import Times


@dataclass(frozen=True)
class Row:
    """One line of the table: the work, the measured figure, the aim, and whether it was met."""

    work: str
    measured: str
    aim: str = ""
    met: bool = True


@dataclass(frozen=True)
class Bars:
    """Times of several programs for the same work, pccpipe first."""

    title: str
    times: tuple[Times, ...]


def as_table(rows: Sequence[Row]) -> str:
    """Return a table in Markdown."""
    lines = ["| work | measured | aim | met |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {row.work} | {row.measured} | {row.aim} | {('yes' if row.met else '**no**') if row.aim else ''} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


LABELS, WIDTH, LINE = 190, 760, 22


def as_chart(groups: Sequence[Bars]) -> str:
    """Return an SVG of bars; the bars of a group have one scale."""
    shapes: list[str] = []
    y = 8
    for group in groups:
        shapes.append(f'<text x="0" y="{y + 14}" class="title">{escape(group.title)}</text>')
        y += 24
        longest = max(times.median for times in group.times)
        for times in group.times:
            width = max(1.0, (WIDTH - LABELS - 90) * times.median / longest)
            kind = "ours" if times is group.times[0] else "theirs"
            shapes += [
                f'<text x="{LABELS - 8}" y="{y + 14}" class="name">{escape(times.name)}</text>',
                f'<rect x="{LABELS}" y="{y + 3}" width="{width:.1f}" height="{LINE - 7}" class="{kind}"/>',
                f'<text x="{LABELS + width + 6:.1f}" y="{y + 14}">{_seconds(times.median)}</text>',
            ]
            y += LINE
        y += 10
    style = (
        "text{font:13px system-ui,sans-serif;fill:#57606a}.title{font-weight:600}.name{text-anchor:end}"
        ".ours{fill:#1f883d}.theirs{fill:#afb8c1}"
    )
    size = f'width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{style}</style>\n' + "\n".join(shapes) + "\n</svg>\n"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"
