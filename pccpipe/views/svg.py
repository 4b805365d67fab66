"""Draws a pipeline's graph as SVG: one column from top to bottom, with groups as boxes around their steps.

Each node has an axis on which the arrows run; its width to both sides of the axis is measured first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.sax.saxutils import escape

from msgspec import Struct, field

from pccpipe.views.graph import Box, Card, Flow, Graph, Look

_CARD, _PILL = 384, 232
_GAP, _SIDE, _MARGIN = 34, 28, 36
_LINE = 18
_HEAD = 16
"""Above the first line of a card or a group's heading."""
_PAD = 22
_LOOP = 40
"""Left of a group's steps, for the arrow back to the first."""
_ABREAST = 3
_FONT = "-apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif"
_MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
_INK, _MUTED, _EDGE, _WARN = "#1f2328", "#59636e", "#8c959f", "#9a6700"
_COLOURS = {Look.CONTAINER: "#8250df", Look.VM: "#0969da", Look.LOCAL: "#57606a", Look.ACTION: "#1a7f37"}
_WORDS = {
    Look.CONTAINER: "in a container",
    Look.VM: "on the VM",
    Look.LOCAL: "on this machine",
    Look.ACTION: "by pccpipe itself",
}
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class _Size(Struct, frozen=True):
    left: float
    right: float
    height: float


def svg(graph: Graph) -> str:
    """Return the graph as an SVG document that needs no other file."""
    return _Drawing().document(graph)


class _Drawing(Struct):
    parts: list[str] = field(default_factory=list)

    def document(self, graph: Graph) -> str:
        steps, always = _column(graph.steps), _column(graph.always)
        left = max(steps.left, always.left + _PAD)
        right = max(steps.right, always.right + _PAD)
        looks = _looks((*graph.steps, *graph.always))
        width = max(left + right, 200 + 130 * len(looks)) + 2 * _MARGIN
        axis = _MARGIN + left
        letters = int((width - 2 * _MARGIN) / 6.6)
        self._text(_MARGIN, _MARGIN + 14, graph.name, size=20, weight=600)
        y = _MARGIN + 38.0
        for line in _wrapped(graph.description, letters):
            self._text(_MARGIN, y, line, colour=_MUTED)
            y += _LINE
        y = self._legend(looks, y + 4) + _GAP
        y = self._draw_column(graph.steps, axis, y)
        if graph.always:
            y = self._always(graph.always, always, axis, y + _GAP, steps)
        height = y + _MARGIN
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
                f'viewBox="0 0 {width:g} {height:g}" font-family="{_FONT}" role="img">',
                f"<title>{_clean(graph.name)}</title>",
                '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
                f'orient="auto-start-reverse"><path d="M0 0.5 L7.5 4 L0 7.5 z" fill="{_EDGE}"/></marker></defs>',
                f'<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>',
                *self.parts,
                "</svg>\n",
            ]
        )

    def _legend(self, looks: Sequence[Look], y: float) -> float:
        x = float(_MARGIN)
        for look in looks:
            self._rect(x, y, 12, 12, fill=_COLOURS[look], rounded=3)
            self._text(x + 18, y + 10.5, _WORDS[look], size=12, colour=_MUTED)
            x += 18 + len(_WORDS[look]) * 6.6 + 24
        return y + 12

    def _always(self, nodes: Sequence[Card | Box], size: _Size, axis: float, y: float, above: _Size) -> float:
        left, right = max(size.left + _PAD, above.left), max(size.right + _PAD, above.right)
        height = _HEAD + 2 * _LINE + size.height + _PAD
        self._arrow(axis, y - _GAP, axis, y)
        self._rect(axis - left, y, left + right, height, fill="#f6f8fa", stroke=_EDGE, rounded=12, dashed=True)
        self._text(axis - left + 16, y + _HEAD + 8, "always", weight=600, size=14)
        self._text(axis - left + 80, y + _HEAD + 8, "after success, failure, timeout and cancel", colour=_MUTED)
        return self._draw_column(nodes, axis, y + _HEAD + 2 * _LINE) + _PAD

    def _draw_column(self, nodes: Sequence[Card | Box], axis: float, y: float) -> float:
        """Draw nodes from top to bottom; returns where they end."""
        for index, node in enumerate(nodes):
            if index:
                self._arrow(axis, y, axis, y + _GAP)
                y += _GAP
            self._draw(node, axis, y)
            y += _measure(node).height
        return y

    def _draw(self, node: Card | Box, axis: float, y: float) -> None:
        if isinstance(node, Card):
            self._card(node, axis - _CARD / 2, y)
        else:
            self._group(node, axis, y)

    def _card(self, card: Card, x: float, y: float) -> None:
        height = _measure(card).height
        colour = _COLOURS[card.look]
        for behind in (8, 4) if card.several else ():
            self._rect(x + behind, y + behind, _CARD, height, fill="#ffffff", stroke="#d1d9e0", rounded=10)
        self._rect(x, y, _CARD, height, fill="#ffffff", stroke="#d1d9e0", rounded=10)
        self.parts.append(
            f'<path d="M{x + 10:g} {y:g} h-2 a8 8 0 0 0 -8 8 v{height - 16:g} a8 8 0 0 0 8 8 h2 z" fill="{colour}"/>'
        )
        at = y + _HEAD + 8
        self._text(x + 24, at, card.id, weight=600, size=14, most=40)
        for line in _wrapped(card.does, 54):
            at += _LINE
            self._text(x + 24, at, line, colour=colour)
        if card.command:
            at += _LINE
            self._text(x + 24, at, card.command, size=11, colour=_INK, mono=True, most=52)
        for line in _wrapped(" · ".join(card.rules), 58):
            at += _LINE
            self._text(x + 24, at, line, size=12, colour=_MUTED)
        if card.fallback:
            self._pill(card, x + _CARD, y)

    def _pill(self, card: Card, x: float, y: float) -> None:
        middle = y + min(_measure(card).height / 2, 34)
        self._arrow(x, middle, x + _SIDE, middle, dashed=True)
        lines = _wrapped(card.fallback, 32)
        height = 14 + (len(lines) + 1) * 16
        top = middle - height / 2
        self._rect(x + _SIDE, top, _PILL, height, fill="#fff8c5", stroke=_WARN, rounded=14, dashed=True)
        self._text(x + _SIDE + 16, top + 19, "if unavailable", size=11, colour=_WARN)
        for index, line in enumerate(lines):
            self._text(x + _SIDE + 16, top + 36 + index * 16, line, size=12, colour=_COLOURS[card.fallback_look])

    def _group(self, group: Box, axis: float, y: float) -> None:
        size = _measure(group)
        x, width = axis - size.left, size.left + size.right
        heading = _heading(group, width)
        for behind in (8, 4) if group.several else ():
            self._rect(x + behind, y + behind, width, size.height, fill="#ffffff", stroke="#d1d9e0", rounded=12)
        self._rect(x, y, width, size.height, fill="#f6f8fa", stroke="#d1d9e0", rounded=12)
        self._text(x + 16, y + _HEAD + 8, group.id, weight=600, size=14, most=40)
        for index, line in enumerate(heading):
            self._text(x + 16, y + _HEAD + 8 + (index + 1) * _LINE, line, size=12, colour=_MUTED)
        top = y + _HEAD + (len(heading) + 1) * _LINE + 8
        if group.flow is Flow.PARALLEL:
            bottom = self._draw_rows(group, x, top)
        else:
            bottom = self._draw_column(group.inner, axis, top)
            if group.flow is Flow.REPEAT:
                self._back(group, axis, x + 20, top, bottom)
        if group.always:
            self._text(x + 16, bottom + _GAP, "always", weight=600)
            self._draw_column(group.always, axis, bottom + _GAP + _LINE)

    def _draw_rows(self, group: Box, x: float, top: float) -> float:
        """Draw the steps of a `parallel:` group in rows; return where they end."""
        for row in _rows(group):
            at = x + _PAD
            for node in row:
                inner = _measure(node)
                self._draw(node, at + inner.left, top)
                at += inner.left + inner.right + _SIDE
            top += max(_measure(node).height for node in row) + _SIDE
        return top - _SIDE

    def _back(self, group: Box, axis: float, x: float, top: float, bottom: float) -> None:
        """Draw the arrow from the last step of a round to the first of the next."""
        first, last = _measure(group.inner[0]), _measure(group.inner[-1])
        begin, end = bottom - min(last.height / 2, 30.0), top + min(first.height / 2, 30.0)
        if begin - end < 24:
            begin, end = bottom - 10, top + 10
        self.parts.append(
            f'<path d="M{axis - last.left:g} {begin:g} H{x + 10:g} Q{x:g} {begin:g} {x:g} {begin - 10:g} V{end + 10:g} '
            f'Q{x:g} {end:g} {x + 10:g} {end:g} H{axis - first.left - 1:g}" fill="none" stroke="{_EDGE}" '
            'stroke-width="1.5" marker-end="url(#head)"/>'
        )

    def _arrow(self, x1: float, y1: float, x2: float, y2: float, *, dashed: bool = False) -> None:
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        x3, y3 = (x2 - 1, y2) if y1 == y2 else (x2, y2 - 1)
        self.parts.append(
            f'<path d="M{x1:g} {y1:g} L{x3:g} {y3:g}" stroke="{_EDGE}" stroke-width="1.5" fill="none"{dash} '
            'marker-end="url(#head)"/>'
        )

    def _rect(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        fill: str,
        stroke: str = "none",
        rounded: int,
        dashed: bool = False,
    ) -> None:
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{rounded}" fill="{fill}" '
            f'stroke="{stroke}"{dash}/>'
        )

    def _text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: int = 13,
        weight: int = 400,
        colour: str = _INK,
        mono: bool = False,
        most: int = 400,
    ) -> None:
        family = f' font-family="{_MONO}"' if mono else ""
        whole = f"<title>{_clean(text)}</title>" if len(text) > most else ""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" font-weight="{weight}" fill="{colour}"{family} '
            f'xml:space="preserve">{whole}{_clean(_cut(text, most))}</text>'
        )


def _measure(node: Card | Box) -> _Size:
    if isinstance(node, Card):
        lines = 1 + len(_wrapped(node.does, 54)) + bool(node.command) + len(_wrapped(" · ".join(node.rules), 58))
        beside = _SIDE + _PILL if node.fallback else 0
        return _Size(_CARD / 2, _CARD / 2 + beside, 2 * _HEAD + lines * _LINE - 12)
    if node.flow is not Flow.PARALLEL:
        inner = _column(node.inner)
        beside = _LOOP if node.flow is Flow.REPEAT else _PAD
        left, right, height = inner.left + beside, inner.right + _PAD, inner.height
    else:
        rows = [[_measure(each) for each in row] for row in _rows(node)]
        widths = [sum(size.left + size.right for size in row) + _SIDE * (len(row) - 1) for row in rows]
        left = right = max(widths) / 2 + _PAD
        height = sum(max(size.height for size in row) for row in rows) + _SIDE * (len(rows) - 1)
    if node.always:
        always = _column(node.always)
        left, right = max(left, always.left + _PAD), max(right, always.right + _PAD)
        height += _GAP + _LINE + always.height
    head = _HEAD + (len(_heading(node, left + right)) + 1) * _LINE + 8
    return _Size(left, right, head + height + _PAD)


def _rows(group: Box) -> list[tuple[Card | Box, ...]]:
    """Split the steps that run side by side into rows."""
    return [group.inner[at : at + _ABREAST] for at in range(0, len(group.inner), _ABREAST)]


def _column(nodes: Sequence[Card | Box]) -> _Size:
    sizes = [_measure(node) for node in nodes] or [_Size(0, 0, 0)]
    height = sum(size.height for size in sizes) + _GAP * (len(sizes) - 1)
    return _Size(max(size.left for size in sizes), max(size.right for size in sizes), height)


def _heading(group: Box, width: float) -> list[str]:
    return _wrapped(" · ".join(group.rules), int((width - 32) / 6.8))


def _looks(nodes: Sequence[Card | Box]) -> list[Look]:
    """Return the looks of all nodes, in the order of the legend."""
    found: set[Look] = set()
    for node in nodes:
        found |= {node.look} if isinstance(node, Card) else set(_looks(node.inner))
    return [look for look in _WORDS if look in found]


def _wrapped(text: str, most: int) -> list[str]:
    """Wrap text into at most three lines of `most` characters; of an empty text, none."""
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= most:
            lines[-1] += f" {word}"
        else:
            lines.append(_cut(word, most))
    return lines if len(lines) <= 3 else [*lines[:2], _cut(" ".join(lines[2:]), most)]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def _clean(text: str) -> str:
    return escape(_NO_XML.sub("\ufffd", text))
