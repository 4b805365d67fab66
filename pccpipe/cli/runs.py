"""`pccpipe runs`: lists the recorded runs."""

from __future__ import annotations

from pathlib import Path

import click

from pccpipe.cli.options import print_lines, runs_dir_option


@click.command()
@runs_dir_option
def runs(runs_dir: Path) -> None:
    """List the recorded runs, the newest first."""
    from pccpipe.record.index import list_runs
    from pccpipe.views.show import runs_text

    entries = list_runs(runs_dir)
    print_lines(runs_text(entries) if entries else [f"no runs in {runs_dir}"])
