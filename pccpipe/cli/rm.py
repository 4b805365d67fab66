"""`pccpipe rm`: removes the records of runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from pccpipe.cli.options import print_lines, record_of, runs_dir_option


@click.command()
@click.argument("run_ids", metavar="RUN_ID...", nargs=-1, required=True)
@runs_dir_option
@click.option("--force", is_flag=True, help="Also remove a run that can be resumed.")
def rm(run_ids: Sequence[str], runs_dir: Path, force: bool) -> None:
    """Remove the records of runs: events, logs, results, diffs, and copies of the workspace.

    Of a run that ended it removes all that is on this machine, also changes that exist nowhere else, and names those
    with their size. It never removes a run that a process on this machine runs.

    Exit status: 0, 1 if something could not be removed.
    """
    from pccpipe.records import delete_run
    from pccpipe.views.removed import removed_text

    for run_id in run_ids:
        record_of(runs_dir, run_id)
    has_left = False
    for run_id in run_ids:
        removed = delete_run(run_id, runs_dir=runs_dir, force=force)
        print_lines(removed_text(removed))
        has_left = has_left or bool(removed.left)
    sys.exit(1 if has_left else 0)
