"""`pccpipe logs`: what a run's commands wrote."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pccpipe.cli.options import DEFAULT_RUNS_DIR, RunsDir, record_of
from pccpipe.errors import UsageError

if TYPE_CHECKING:
    from pccpipe.record.state import Attempt

PAUSE = 0.2
"""Seconds between two looks, with --follow."""
PIECE = 256 * 1024


def command(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", show_default=False)],
    step: Annotated[
        str | None, typer.Argument(metavar="STEP", help="A step's path or id; default: all.", show_default=False)
    ] = None,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the run ends.")] = False,
    stderr: Annotated[bool, typer.Option("--stderr", help="Stderr's log in place of stdout's.")] = False,
) -> None:
    """Show the logs of a run's steps, byte for byte."""
    record = record_of(runs_dir, run_id)
    shown: dict[Path, int] = {}
    while True:
        attempts, over = _attempts(record, step)
        for attempt in attempts:
            name = attempt.stderr if stderr else attempt.stdout
            if name:
                _show(record / name, shown)
        if over or not follow:
            return
        time.sleep(PAUSE)


def _attempts(record: Path, step: str | None) -> tuple[list[Attempt], bool]:
    """The attempts of the wanted steps that began, in order; and whether the run is over."""
    from pccpipe.record.state import load_state
    from pccpipe.spec.problem import did_you_mean

    state = load_state(record)
    paths = [path for path in state.steps if step in {None, path, path.rpartition(".")[2]}]
    over = state.ended_at is not None
    if step is not None and not paths and over:
        raise UsageError(f"the run has no step {step!r}", did_you_mean(step, state.steps))
    return [attempt for path in paths for attempt in state.steps[path].attempts if attempt.had], over


def _show(path: Path, shown: dict[Path, int]) -> None:
    try:
        with path.open("rb") as file:
            file.seek(shown.get(path, 0))
            while data := file.read(PIECE):
                sys.stdout.buffer.write(data)
            shown[path] = file.tell()
    except FileNotFoundError:
        return
    sys.stdout.buffer.flush()
