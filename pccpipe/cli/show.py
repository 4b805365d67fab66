"""`pccpipe show`: shows the record of a run."""

from __future__ import annotations

from pathlib import Path

import click

from pccpipe.cli.options import print_lines, record_of, runs_dir_option


@click.command()
@click.argument("run_id")
@runs_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print the state, as in run.json.")
def show(run_id: str, runs_dir: Path, as_json: bool) -> None:
    """Show a run: its steps, how they ended, and their isolation.

    For each step: the place where it really ran, the reason if that is not where it asked to run, its result and logs.
    """
    from pccpipe.record.lock import is_abandoned
    from pccpipe.record.state import WAITING, WAITING_FOR_MODEL, load_state, state_text
    from pccpipe.views.show import show_text

    record = record_of(runs_dir, run_id)
    state = load_state(record)
    if as_json:
        print_lines([state_text(state).rstrip()])
        return
    may_run = state.ended_at is None and state.status not in {WAITING, WAITING_FOR_MODEL} and not state.stopped
    print_lines(show_text(state, record, interrupted=may_run and is_abandoned(record)))
