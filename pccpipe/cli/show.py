"""`pccpipe show`: what is known of a run."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pccpipe.cli.options import DEFAULT_RUNS_DIR, RunsDir, record_of, tell


def command(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", show_default=False)],
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    as_json: Annotated[bool, typer.Option("--json", help="The state as run.json has it.")] = False,
) -> None:
    """Show a run: its steps, how they ended, what isolation they had.

    Where each step really ran and with what isolation, why not where it asked to, its result and its logs.
    """
    from pccpipe.record.index import is_abandoned
    from pccpipe.record.state import load_state
    from pccpipe.views.show import show

    record = record_of(runs_dir, run_id)
    state = load_state(record)
    if as_json:
        tell([json.dumps(state.to_json(), indent=1, ensure_ascii=False)])
        return
    tell(show(state, record))
    if state.ended_at is None and is_abandoned(state.host, state.pid):
        tell(["", f"its process {state.pid} is gone, and did not say how the run ended"])
