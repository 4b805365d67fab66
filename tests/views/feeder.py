"""Plays a scripted run into the live view, as its process: `python -m tests.views.feeder SCRIPT SPEED`."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import replace

from pccpipe.outcome import ActionKind, Outcome, Place, Stream
from pccpipe.record.agent_events import Activity, ModelUsed
from pccpipe.record.events import CommandEnded, Event, Happening, LiveEvent, Output, StepEnded, StepStarted
from pccpipe.record.run_events import RunEnded
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


def agent_run() -> Iterator[Happening]:
    """Return a run whose builder is an agent at work, with hostile text in what it does."""
    yield started("build", "later", mode=default_run()[0].isolation_mode)  # type: ignore[union-attr]
    yield StepStarted("build", "run", Place.CONTAINER, timeout=3600.0)
    yield replace(command("build", BOXED), agent="codex")
    yield Output("build", Stream.STDOUT, '{"type":"thread.started","thread_id":"t"}\n')
    for number in range(12):
        yield Activity("build", ActionKind.COMMAND, f"npm test -- unit-{number} --verbose {'x' * 60}", f"c{number}")
        yield Output("build", Stream.STDOUT, '{"type":"item.completed","item":{"type":"command_execution"}}\n')
        code = number % 2
        yield Activity("build", ActionKind.COMMAND_END, f"npm test -- {number}", f"c{number}", code, bool(code), 12.5)
    yield Activity("build", ActionKind.EDIT, "src/parser.py", added=120, removed=14)
    yield Activity("build", ActionKind.MESSAGE, "I fixed\nthe \x1b[2J\x1b]0;title\x07parser \u202edrawkcab")
    yield Activity("build", ActionKind.MESSAGE, '{"summary": "fixed"}')
    yield ModelUsed("build", 14, 0, 1_200_000, 900_000, 40_000, 0, budget_tokens=2_000_000, budget_used=1_240_000)
    yield Activity("build", ActionKind.COMMAND, "npm run build", "c99")


def main() -> None:
    script = {"chatty": chatty_run, "wide": wide_run, "agent": agent_run}[sys.argv[1]]
    pause = float(sys.argv[2])
    view = LiveView(sys.stdout, Path(".system/runs/r1"))
    seq = itertools.count(1)
    for what in script():
        view(Event(0 if isinstance(what, LiveEvent) else next(seq), time.time(), what))
        time.sleep(pause)
    time.sleep(float(sys.argv[3]) if len(sys.argv) > 3 else 0)
    view.close()


if __name__ == "__main__":
    main()
