"""Lays out what the live view shows at one moment: rows of styled pieces that fit a terminal. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from msgspec import Struct

from pccpipe.outcome import Outcome
from pccpipe.record.state import QUEUED, WAITING, WAITING_FOR_MODEL, RunState
from pccpipe.record.step_state import StepState
from pccpipe.views.services import board_text
from pccpipe.views.summary import why
from pccpipe.views.text import cells, facts_text, harmless_line, shorten, where
from pccpipe.views.tree import Node, tree
from pccpipe.words import duration

Line: TypeAlias = "tuple[tuple[str, str], ...]"
"""Pieces of (text, style), with rich's names of styles."""

MOST_TAIL = 6
"""Lines of output under a running step, at most."""
MOST_AGENT = 10
"""The same for a step with `agent:`, whose first two lines have its work in numbers."""
MOST_FINAL = 200
"""Rows of the final tree, at most; `show` has all."""
_LABEL_WIDTHS = (14, 30)

_MARKS: dict[Outcome, tuple[str, str]] = {
    Outcome.SUCCEEDED: ("✔", "green"),
    Outcome.FAILED: ("✘", "bold red"),
    Outcome.TIMED_OUT: ("✘", "bold red"),
    Outcome.CANCELLED: ("■", "yellow"),
    Outcome.SKIPPED: ("-", "dim"),
    Outcome.UNAVAILABLE: ("✘", "bold red"),
    Outcome.LOST: ("?", "bold red"),
}


class _Row(Struct, frozen=True):
    node: Node
    depth: int
    collapsed: bool = False

    @property
    def needed(self) -> bool:
        """True for a row that a small terminal shows too: it runs, or went wrong."""
        return self.node.running or not self.node.fine


def board(
    state: RunState, tail: Callable[[str, int], Sequence[str]], now: float, width: int, height: int
) -> list[Line]:
    """Return the lines for a terminal of that size. `tail(path, most)` gives the last lines of a step's output."""
    rows = _rows(state)
    label = _label_width(rows)
    shown = _fit(rows, height - 1)
    running = [row for row in shown if isinstance(row, _Row) and _is_running_leaf(row)]
    spare = height - 1 - len(shown)
    share = spare // len(running) if running else 0
    lines = [_header(state, now)]
    for row in shown:
        if isinstance(row, int):
            lines.append(_more(row))
            continue
        lines.append(_line(state, row, label, now))
        if row in running:
            indent = "  " * row.depth + "  │ "
            most = MOST_AGENT if row.node.step and row.node.step.agent else MOST_TAIL
            lines += [((indent, "dim"), (text, "dim")) for text in tail(row.node.path, min(most, share))]
    return [cut_line(line, width) for line in lines]


def final_board(state: RunState, now: float, width: int) -> list[Line]:
    """Return the tree of a run that ended; of a very large tree, the rows that matter most."""
    rows = _rows(state)
    label = _label_width(rows)
    shown = [_more(row) if isinstance(row, int) else _line(state, row, label, now) for row in _fit(rows, MOST_FINAL)]
    return [cut_line(line, width) for line in (_header(state, now), *shown)]


def _rows(state: RunState) -> list[_Row]:
    """Return a row for each step; while the run goes on, rounds and legs that ended well take one row each."""
    rows: list[_Row] = []

    def add(node: Node, depth: int, *, inside: bool) -> None:
        collapsed = inside and bool(node.children) and node.ended and state.ended_at is None
        rows.append(_Row(node, depth, collapsed))
        if not collapsed:
            for child in node.children:
                add(child, depth + 1, inside=True)

    for node in tree(state):
        add(node, 0, inside=False)
    return rows


def _fit(rows: Sequence[_Row], height: int) -> list[_Row | int]:
    """Choose at most `height` rows; a number counts rows that are left out."""
    if len(rows) <= height:
        return list(rows)

    # First running groups, then running and failed steps, then ended steps, the newest first, then steps to come.
    def rank(index: int) -> tuple[bool, bool, bool, int]:
        row = rows[index]
        return not (row.node.running and row.node.children), not row.needed, not row.node.ended, -index

    order = sorted(range(len(rows)), key=rank)
    room = height - 1
    while True:
        kept = set(order[: max(0, room)])
        fitted: list[_Row | int] = []
        for index, row in enumerate(rows):
            if index in kept:
                fitted.append(row)
            elif fitted and isinstance(fitted[-1], int):
                fitted[-1] += 1
            else:
                fitted.append(1)
        if len(fitted) <= height or room <= 0:
            return fitted[: max(0, height)]
        room -= 1


def _more(count: int) -> Line:
    return ((f"  ⋮ {count} more", "dim"),)


def _is_running_leaf(row: _Row) -> bool:
    return row.node.running and not row.node.children


def _header(state: RunState, now: float) -> Line:
    took = state.seconds if state.seconds is not None else now - (state.started_at or now)
    pieces = [
        (f"{harmless_line(state.pipeline)}", "bold"),
        (f" · {state.run_id} · {state.isolation_mode.value} · ", "dim"),
    ]
    pieces.append((duration(took), ""))
    if state.status in {QUEUED, WAITING, WAITING_FOR_MODEL}:
        pieces.append((f" · {state.status}", "yellow"))
    if state.cancelled_by and state.outcome is None:
        pieces.append((" · cancelling", "yellow"))
    if state.downgraded:
        pieces.append((" · downgraded", "yellow"))
    if state.project_path:
        pieces.append((f" · {harmless_line(state.project_path)}", "dim"))
    return tuple(pieces)


def _label_width(rows: Sequence[_Row]) -> int:
    """Return the columns for indent and label: wide from the start, so that the rest seldom moves."""
    least, most = _LABEL_WIDTHS
    return max(least, min(most, max((2 * row.depth + cells(row.node.label) for row in rows), default=0)))


def _line(state: RunState, row: _Row, width: int, now: float) -> Line:
    node, step = row.node, row.node.step
    mark, style = _mark(node)
    indent = "  " * row.depth
    label = shorten(harmless_line(node.label), max(1, width - len(indent)))
    pad = " " * (width - len(indent) - cells(label))
    return (
        (f"{indent}", ""),
        (f"{mark} ", style),
        (f"{label}{pad}", "" if node.running or node.ended else "dim"),
        (f" {duration(_seconds(node, now)):>6}  ", "cyan" if node.running else "dim"),
        *_notes(state, step, node, now, collapsed=row.collapsed),
    )


def _mark(node: Node) -> tuple[str, str]:
    step = node.step
    if step is not None and step.outcome is not None:
        mark, style = _MARKS[step.outcome]
        return mark, "yellow" if step.ignored else style
    if node.running:
        return "▶", "bold cyan"
    if node.ended and node.children:
        return ("✔", "green") if node.fine else ("✘", "bold red")
    return "·", "dim"


def _seconds(node: Node, now: float) -> float | None:
    step = node.step
    if step is None:
        begun = [child.step.started_at for child in node.children if child.step and child.step.started_at is not None]
        ends = [
            child.step.started_at + child.step.seconds
            for child in node.children
            if child.step and child.step.started_at is not None and child.step.seconds is not None
        ]
        if not begun:
            return None
        return (now if node.running else max(ends, default=now)) - min(begun)
    if step.outcome is Outcome.SKIPPED:
        return None
    if step.seconds is not None:
        return step.seconds
    return now - step.started_at if step.started_at is not None else None


def _notes(state: RunState, step: StepState | None, node: Node, now: float, *, collapsed: bool) -> Line:
    if step is None:
        return ((_collapsed(node), "dim"),) if collapsed else ()
    pieces: list[tuple[str, str]] = []
    if step.had:
        by = f"{step.agent}, " if step.agent else ""
        pieces.append((harmless_line(f"{by}{where(step.had)}"), "dim"))
    for downgrade in state.downgrades:
        if downgrade.step == step.path:
            pieces.append((f" ⚠ asked for {downgrade.asked}: {downgrade.reason}", "yellow"))
    for change in state.agent_changes:
        if change.step == step.path:
            pieces.append((harmless_line(f" ⚠ {change.agent} after {change.after}"), "yellow"))
    if step.still_since is not None and step.outcome is None:
        pieces.append((f" ⚠ stalled for {duration(now - step.still_since)}", "yellow"))
    if len(step.attempts) > 1:
        pieces.append((f" · attempt {len(step.attempts)}", "dim"))
    if step.round and step.outcome is None:
        pieces.append((f"round {step.round} of {step.rounds}", "dim"))
    if beside := board_text(step):
        pieces.append((f"{' · ' if pieces else ''}{harmless_line(beside)}", "dim"))
    if step.background and step.outcome is None:
        pieces.append((" · in the background" if step.ready else " · not ready yet", "dim"))
    if step.facts:
        pieces.append((facts_text(step.kind or "", step.facts), "dim"))
    if step.warning and step.had is None and step.outcome is None:
        pieces.append((harmless_line(step.warning), "yellow"))
    if step.outcome is Outcome.SKIPPED and step.message:
        pieces.append((harmless_line(step.message), "dim"))
    if step.outcome and step.outcome not in {Outcome.SUCCEEDED, Outcome.SKIPPED}:
        separator = " · " if pieces else ""
        pieces.append((f"{separator}{harmless_line(why(step))}", "yellow" if step.ignored else "red"))
    if collapsed and not pieces:
        pieces.append((_collapsed(node), "dim"))
    return tuple(pieces)


def _collapsed(node: Node) -> str:
    """Summarize an ended group: the steps that did not simply succeed, or their number."""
    inside = [child.step for child in node.all() if child is not node and child.step and not child.children]
    notable = [
        f"{step.path.rpartition('.')[2]} {step.outcome}" for step in inside if step.outcome is not Outcome.SUCCEEDED
    ]
    return harmless_line(", ".join(notable) if notable else f"{len(inside)} steps")


def cut_line(line: Line, width: int) -> Line:
    """Cut a line to at most `width` columns."""
    left, pieces = width, []
    for text, style in line:
        if cells(text) > left:
            pieces.append((shorten(text, left), style))
            break
        pieces.append((text, style))
        left -= cells(text)
    return tuple(pieces)
