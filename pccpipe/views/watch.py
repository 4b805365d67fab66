"""What the views of a running run have in common: the state so far, and the last lines of each step that matters."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from pccpipe.outcome import Outcome, Stream
from pccpipe.record.events import CommandEnded, Event, Output, StepEnded
from pccpipe.record.state import RunState
from pccpipe.views.text import Lines, harmless_line

TAIL = 20
"""Lines that are kept of each step's output for a view; the log has all of them."""


class Watch:
    """Folds events. Feed it each event once; it gives the lines of output that became whole by it.

    `earlier` are those of a run that is resumed, which nobody is to be shown again.
    """

    def __init__(self, earlier: Iterable[Event] = ()) -> None:
        self.state = RunState()
        for event in earlier:
            self.state.apply(event)
        self._tails: dict[str, deque[str]] = {}
        self._lines: dict[str, dict[Stream, Lines]] = {}

    def take(self, event: Event) -> str:
        """Take in an event; the lines are as they came, not harmless yet, each with its newline."""
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
        """The last lines of a step, harmless, also one that is not whole yet."""
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
