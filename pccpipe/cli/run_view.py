"""Shows a run on the terminal while a command runs it, and lets signals cancel it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pccpipe.cli.crash import keep_tracebacks_in
from pccpipe.cli.options import Format
from pccpipe.cli.signals import obey_signals, stop_obeying

if TYPE_CHECKING:
    from pccpipe.cancel import Cancel
    from pccpipe.record.events import Event
    from pccpipe.views.queued import QueuedView, View


@contextlib.contextmanager
def watched(output: Format, record: Path, earlier: Iterable[Event] = ()) -> Iterator[tuple[QueuedView, Cancel]]:
    """Within the block, show a run, let signals cancel it, and keep tracebacks in its folder.

    Args:
        earlier: the events from before a resume, which are not shown again.
    """
    from pccpipe.cancel import Cancel

    cancel = Cancel()
    obey_signals(cancel)
    keep_tracebacks_in(record)
    view = run_view(output, record, earlier)
    try:
        yield view, cancel
    finally:
        view.close()


def run_view(output: Format, record: Path, earlier: Iterable[Event] = ()) -> QueuedView:
    """Return the view that --format names; it delays no run, and only its `close` waits for the reader."""
    from pccpipe.views.queued import QueuedView

    return QueuedView(_view(output, record, earlier), on_wait=stop_obeying)


def _view(output: Format, record: Path, earlier: Iterable[Event]) -> View:
    if output is Format.AUTO:
        output = Format.LIVE if can_be_live() else Format.PLAIN
    match output:
        case Format.LIVE:
            from pccpipe.views.live import LiveView

            return LiveView(sys.stdout, record, earlier)
        case Format.JSONL:
            from pccpipe.views.jsonl import JsonLinesView

            return JsonLinesView(sys.stdout.buffer)
        case _:
            from pccpipe.views.plain import PlainView

            return PlainView(sys.stdout, record, earlier)


def can_be_live() -> bool:
    """Say whether stdout is a terminal whose lines can be painted over."""
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb" and encoding == "utf8"
