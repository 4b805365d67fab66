"""Shows a run as a tree on a terminal, repaints it in place, and leaves the whole tree at the end."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO

from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style
from rich.text import Text

from pccpipe.record.events import Event
from pccpipe.record.run_events import Cancelling, RunEnded, RunStopped, RunWaiting
from pccpipe.views.board import Line, board, final_board
from pccpipe.views.summary import summary
from pccpipe.views.watch import Watch

BETWEEN_PAINTS = 0.1
"""Seconds, at least; a board that takes long to make is painted less often."""
IDLE_PAINT = 1.0
"""Seconds after which the times of running steps are painted again, if nothing happens."""


class LiveView:
    """Paint a run's events. One thread paints until `close`, which leaves the final tree and the summary.

    `earlier` as for `Watch`.
    """

    def __init__(self, stream: TextIO, record: Path, earlier: Iterable[Event] = ()) -> None:
        self._console = Console(file=stream, highlight=False)
        self._record = record
        self._watch = Watch(earlier)
        self._lock = threading.Lock()
        self._painter = Painter(stream, self._console)
        self._changed = threading.Event()
        self._over = threading.Event()
        self._has_events = False
        self._thread = threading.Thread(target=self._paint_on, name="pccpipe-live", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        with self._lock:
            self._watch.feed(event)
            self._has_events = True
            if isinstance(event.what, Cancelling):
                # The terminal wrote ^C into the board.
                self._painter.forget()
        self._changed.set()
        if isinstance(event.what, RunEnded | RunStopped | RunWaiting):
            self.close()

    def close(self) -> None:
        """Stop painting; leave the whole tree and the summary. Idempotent."""
        if self._over.is_set():
            return
        self._over.set()
        self._changed.set()
        self._thread.join(timeout=5)
        with self._lock:
            state = self._watch.state
            if not self._has_events:
                return
            lines = final_board(state, time.time(), self._console.width)
            self._painter.leave(lines)
            for line in summary(state, self._record, self._watch.tail):
                self._console.print(Text(line), soft_wrap=True)

    def _paint_on(self) -> None:
        while not self._over.is_set():
            self._changed.wait(IDLE_PAINT)
            self._changed.clear()
            if self._over.is_set():
                return
            began = time.monotonic()
            try:
                self._paint()
            except OSError:
                # The terminal is gone; the run goes on, and its record with it.
                return
            cost = time.monotonic() - began
            self._over.wait(max(BETWEEN_PAINTS, 10 * cost))

    def _paint(self) -> None:
        width, height = self._console.size
        with self._lock:
            if not self._has_events:
                return
            now = time.time()
            tail = functools.partial(self._watch.live_tail, now=now)
            lines = board(self._watch.state, tail, now, width - 1, max(3, height - 1))
            self._painter.paint(lines, (width, height))


class Painter:
    """Repaint lines in place: only changed lines, each over its old one, so that nothing flickers."""

    def __init__(self, stream: TextIO, console: Console) -> None:
        self._stream = stream
        self._console = console
        self._old: list[str] = []
        self._size = (0, 0)
        self._valid = True
        self._styled = functools.lru_cache(4096)(self._make_styled)

    def forget(self) -> None:
        """Paint every line the next time: something else wrote to the terminal."""
        self._valid = False

    def paint(self, lines: Sequence[Line], size: tuple[int, int]) -> None:
        """Show these lines in place of those before; the cursor stays below them."""
        new = [self._styled(line) for line in lines]
        out = ["\x1b[?2026h\x1b[?25l"]
        if size != self._size and self._old:
            # A terminal that changed its width wrapped the lines, in its own way: begin on a clean screen.
            out.append("\x1b[2J\x1b[H")
            self._old = []
        elif self._old:
            out.append(f"\x1b[{len(self._old)}F")
        for index, line in enumerate(new):
            if self._valid and index < len(self._old) and self._old[index] == line:
                out.append("\x1b[E" if index < len(self._old) else "\n")
            else:
                out.append(f"{line}\x1b[K\n")
        out.append("\x1b[J\x1b[?25h\x1b[?2026l")
        self._size, self._old, self._valid = size, new, True
        self._write("".join(out))

    def leave(self, lines: Sequence[Line]) -> None:
        """Replace the painted lines by these, for good."""
        up = f"\x1b[{len(self._old)}F" if self._old else ""
        self._write(up + "".join(f"{self._styled(line)}\x1b[K\n" for line in lines) + "\x1b[J\x1b[?25h")
        self._old = []

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

    def _make_styled(self, line: Line) -> str:
        if self._console.no_color or not self._console.color_system:
            return "".join(text for text, _ in line)
        return "".join(Style.parse(style).render(text, color_system=ColorSystem.STANDARD) for text, style in line)
