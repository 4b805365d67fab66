"""`pccpipe runs`: the runs on record."""

from __future__ import annotations

from pccpipe.cli.options import DEFAULT_RUNS_DIR, RunsDir, tell


def command(runs_dir: RunsDir = DEFAULT_RUNS_DIR) -> None:
    """List the runs on record, the newest first."""
    from pccpipe.record.index import list_runs
    from pccpipe.views.show import runs_text

    entries = list_runs(runs_dir)
    tell(runs_text(entries) if entries else [f"no runs in {runs_dir}"])
