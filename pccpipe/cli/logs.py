"""`pccpipe logs`: what a run's commands wrote."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from pccpipe.cli.options import record_of, runs_dir_option
from pccpipe.errors import UsageError

if TYPE_CHECKING:
    from pccpipe.record.state import RunState
    from pccpipe.record.tail import GrowingFile

PAUSE = 0.2
"""Seconds between two looks, with --follow."""


class Which(Enum):
    """Which of a command's two logs."""

    BOTH = ("stdout", "stderr")
    STDOUT = ("stdout",)
    STDERR = ("stderr",)


@click.command()
@click.argument("run_id")
@click.argument("step", required=False)
@runs_dir_option
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@click.option("--stdout", is_flag=True, help="Only what went to stdout.")
@click.option("--stderr", is_flag=True, help="Only what went to stderr; it comes on stdout.")
def logs(run_id: str, step: str | None, runs_dir: Path, follow: bool, stdout: bool, stderr: bool) -> None:
    """Show what a run's steps wrote.

    Stdout's logs go to stdout and stderr's to stderr; into a pipe or a file byte for byte, while on a terminal escapes
    and invisible characters are shown instead of obeyed. Of several, a line `==> STEP, attempt N, stdout <==` goes
    before each.
    """
    which = Which.BOTH if stdout == stderr else Which.STDOUT if stdout else Which.STDERR
    from pccpipe.record.state import RunState
    from pccpipe.record.tail import GrowingJournal

    record = record_of(runs_dir, run_id)
    journal, state = GrowingJournal(record), RunState()
    printer = _Printer(record, which, headings=step is None)
    while True:
        for event in journal.read():
            state.apply(event)
        over = _is_over(state, record)
        paths = _wanted(state, step, strict=over or not follow)
        printer.show(state, paths)
        if over or not follow:
            printer.close(step)
            return
        time.sleep(PAUSE)


def _wanted(state: RunState, step: str | None, *, strict: bool) -> list[str]:
    """The paths of the wanted steps; of a group, all inside.

    Raises UsageError if there is none, and none can come any more.
    """
    from pccpipe.views.words import is_within

    named = [path for path in state.steps if step in {path, _id(path)}]
    paths = [path for path in state.steps if step is None or any(is_within(path, group) for group in named)]
    if step is not None and not paths and strict:
        from pccpipe.spec.problem import did_you_mean

        raise UsageError(
            f"the run {state.run_id} has no step {step!r}",
            did_you_mean(step, [*state.steps, *(_id(path) for path in state.steps)]),
        )
    return paths


def _id(path: str) -> str:
    """The path's last part as `pccpipe show` names it: `build`, `unit[v=1.5]`."""
    from pccpipe.record.step_path import split

    parts = split(path)
    return "".join(parts[-2:]) if parts[-1].startswith("[") else parts[-1]


def _is_over(state: RunState, record: Path) -> bool:
    from pccpipe.record.lock import is_abandoned

    return state.ended_at is not None or is_abandoned(record)


class _Printer:
    """Writes what is new in the logs, and from which log it is whenever that changes."""

    def __init__(self, record: Path, which: Which, *, headings: bool) -> None:
        self._record = record
        self._which = which
        self._headings = headings
        self._logs: dict[str, GrowingFile] = {}
        self._at = ""

    def show(self, state: RunState, paths: list[str]) -> None:
        logs = list(self._names(state, paths))
        self._headings = self._headings or len(logs) > len(self._which.value)
        for heading, stream, name in logs:
            # Both logs come out as the command wrote them; one that was asked for alone, on stdout.
            out = sys.stderr if stream == "stderr" and self._which is Which.BOTH else sys.stdout
            for data in self._new(name):
                self._write(out, heading, name, data)

    def close(self, step: str | None) -> None:
        """Say so if there was nothing to show: a command that prints nothing leaves people in doubt."""
        if not self._at:
            of = "" if self._which is Which.BOTH else f" to {self._which.value[0]}"
            print(f"pccpipe: {step or 'the run'} wrote nothing{of}", file=sys.stderr)

    def _names(self, state: RunState, paths: list[str]) -> Iterator[tuple[str, str, str]]:
        for path in paths:
            for attempt in state.steps[path].attempts:
                for stream, name in zip(("stdout", "stderr"), attempt.logs, strict=False):
                    if stream in self._which.value:
                        yield f"{path}, attempt {attempt.number}, {stream}", stream, name

    def _new(self, name: str) -> Iterator[bytes]:
        from pccpipe.record.tail import GrowingFile

        log = self._logs.setdefault(name, GrowingFile(self._record / name))
        while data := log.read():
            yield data

    def _write(self, out: TextIO, heading: str, name: str, data: bytes) -> None:
        if name != self._at:
            if self._headings:
                out.buffer.write(f"{chr(10) if self._at else ''}==> {heading} <==\n".encode())
            self._at = name
        out.buffer.write(_for_terminal(data) if out.isatty() else data)
        out.buffer.flush()


def _for_terminal(data: bytes) -> bytes:
    from pccpipe.views.text import harmless

    return harmless(data.decode("utf-8", "replace").replace("\r\n", "\n")).encode("utf-8", "replace")
