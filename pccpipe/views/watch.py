"""Keeps what the views of a running run share: its state, and the last lines of each step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from pccpipe.outcome import Outcome, Stream
from pccpipe.record.events import CommandEnded, Event, Output, StepEnded
from pccpipe.record.state import RunState
from pccpipe.views.text import Lines, harmless_line

TAIL = 20
"""Lines kept of each step's output for a view; the log has all of them."""


class Watch:
    """Fold events into the run's state, and pieces of output into lines.

    `earlier` are the events from before a resume, which are not shown again.
    """

    def __init__(self, earlier: Iterable[Event] = ()) -> None:
        self.state = RunState()
        for event in earlier:
            self.state.apply(event)
        self._tails: dict[str, deque[str]] = {}
        self._lines: dict[str, dict[Stream, Lines]] = {}

    def feed(self, event: Event) -> str:
        """Fold an event; returns the lines of output that it completes, not harmless yet, each with its newline."""
        self.state.apply(event)
        match event.what:
            case Output(step, stream, text):
                lines = self._lines.setdefault(step, {each: Lines() for each in Stream})[stream]
                return self._keep(step, lines.feed(text))
            case CommandEnded(step=step):
                pending = self._lines.pop(step, {})
                return "".join(self._keep(step, lines.finish()) for lines in pending.values())
            case StepEnded(step=step, outcome=Outcome.SUCCEEDED | Outcome.SKIPPED):
                self._tails.pop(step, None)
            case _:
                pass
        return ""

    def tail(self, step: str, most: int = TAIL) -> list[str]:
        """Return the last lines of a step, harmless; also the incomplete one."""
        rests = [lines.rest for lines in self._lines.get(step, {}).values() if lines.rest]
        kept = [*self._tails.get(step, ()), *rests]
        return [harmless_line(line) for line in kept[max(0, len(kept) - most) :]]

    def _keep(self, step: str, lines: str) -> str:
        tail = self._tails.setdefault(step, deque(maxlen=TAIL))
        if lines:
            start = len(lines) - 1
            for _ in range(TAIL):
                start = lines.rfind("\n", 0, max(0, start))
            tail.extend(lines[start + 1 : -1].split("\n"))
        return lines
