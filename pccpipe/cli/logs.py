"""`pccpipe logs`: prints the output of a run's commands."""

from __future__ import annotations

import time
from pathlib import Path

import click

from pccpipe.cli.options import record_of, runs_dir_option

POLL_EVERY = 0.2
"""Seconds between two looks, with --follow."""


@click.command()
@click.argument("run_id")
@click.argument("step", required=False)
@runs_dir_option
@click.option("-f", "--follow", is_flag=True, help="Continue until the run ends.")
@click.option("--stdout", is_flag=True, help="Only the output to stdout.")
@click.option("--stderr", is_flag=True, help="Only the output to stderr; it is printed to stdout.")
@click.option("--agent", is_flag=True, help="What the agents did: commands, edits, messages; not their raw output.")
def logs(run_id: str, step: str | None, runs_dir: Path, follow: bool, stdout: bool, stderr: bool, agent: bool) -> None:
    """Print the output of a run's steps.

    Logs of stdout go to stdout, logs of stderr to stderr. Into a pipe or a file they go byte for byte; a terminal shows
    escapes and invisible characters, and does not obey them. Before each of several logs comes a line
    `==> STEP, attempt N, stdout <==`.
    """
    from pccpipe.record.lock import is_abandoned
    from pccpipe.record.state import RunState
    from pccpipe.record.tail import GrowingJournal
    from pccpipe.views.logs import AgentLogPrinter, LogPrinter, LogStreams

    streams = LogStreams.BOTH if stdout == stderr else LogStreams.STDOUT if stdout else LogStreams.STDERR
    record = record_of(runs_dir, run_id)
    journal, state = GrowingJournal(record), RunState()
    printer = AgentLogPrinter(record, step) if agent else LogPrinter(record, step, streams)
    while True:
        for event in journal.read():
            state.apply(event)
        last = not follow or state.ended_at is not None or is_abandoned(record)
        printer.show(state, is_last=last)
        if last:
            printer.close()
            return
        time.sleep(POLL_EVERY)
