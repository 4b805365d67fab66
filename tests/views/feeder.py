"""Plays a scripted run into the live view, as its process: `python -m tests.views.feeder SCRIPT SPEED`."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from pccpipe.outcome import Outcome, Place, Stream
from pccpipe.record.events import CommandEnded, Event, Happening, Output, RunEnded, StepEnded, StepStarted
from pccpipe.views.live import LiveView
from tests.record.script import BOXED, LOCAL, command, default_run, started


def chatty_run() -> Iterator[Happening]:
    """Return the default run, with more output from its builder."""
    for what in default_run():
        if isinstance(what, Output) and what.text == "thinking\n":
            for number in range(40):
                yield Output(
                    what.step, what.stream, f"thinking about line {number} \x1b[2J\x1b[31mred\x1b[0m \x07 {'x' * 90}\n"
                )
        yield what


def wide_run() -> Iterator[Happening]:
    """Return many steps side by side: more than the screen has lines."""
    yield started("legs", "later", mode=default_run()[0].isolation_mode)  # type: ignore[union-attr]
    yield StepStarted("legs", "matrix")
    names = [f"legs[n={number}]" for number in range(60)]
    for name in names:
        yield StepStarted(name, "run", Place.CONTAINER)
        yield command(name, BOXED if len(name) % 2 else LOCAL)
        yield Output(name, Stream.STDOUT, f"output of {name}\n")
    for number, name in enumerate(names):
        outcome = Outcome.FAILED if number == 7 else Outcome.SUCCEEDED
        yield CommandEnded(name, 1, outcome, seconds=1.0)
        yield StepEnded(name, outcome, 1.0, message="exit code 1" if number == 7 else "")
    yield StepEnded("legs", Outcome.FAILED, 9.0, message="legs[n=7]: exit code 1")
    yield RunEnded(Outcome.FAILED, "failed", False, 9.0, "legs[n=7]: exit code 1")


def main() -> None:
    script = {"chatty": chatty_run, "wide": wide_run}[sys.argv[1]]
    pause = float(sys.argv[2])
    view = LiveView(sys.stdout, Path(".system/runs/r1"))
    seq = itertools.count(1)
    for what in script():
        view(Event(0 if isinstance(what, Output) else next(seq), time.time(), what))
        time.sleep(pause)
    view.close()


if __name__ == "__main__":
    main()
