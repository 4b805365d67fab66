"""`pccpipe runs`: the runs on record."""

from __future__ import annotations

from pccpipe.cli.options import DEFAULT_RUNS_DIR, RunsDir


def command(runs_dir: RunsDir = DEFAULT_RUNS_DIR) -> None:
    """List the runs on record, the newest first."""
    from pccpipe.record.state import load_state
    from pccpipe.views.text import date, duration

    folders = [path.parent for path in runs_dir.glob("*/events.jsonl")]
    if not folders:
        print(f"no runs in {runs_dir}")
        return
    states = sorted((load_state(folder) for folder in folders), key=lambda state: state.started_at or 0, reverse=True)
    width = max(len(state.run_id) for state in states)
    for state in states:
        downgraded = "  downgraded" if state.downgraded else ""
        ended = duration(state.seconds) if state.seconds is not None else ""
        print(
            f"{state.run_id:<{width}}  {date(state.started_at)}  {state.status:<12} {ended:>8}  {state.pipeline}{downgraded}"
        )
