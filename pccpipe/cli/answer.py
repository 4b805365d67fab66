"""`pccpipe answer`: gives a waiting run what its agents asked a person for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from pccpipe.cli.options import print_lines, project_of_run_option, read_values, record_of, runs_dir_option


@click.command()
@click.argument("run_id", metavar="RUN_ID")
@click.argument("given", nargs=-1, metavar="KEY=VALUE...")
@project_of_run_option
@runs_dir_option
def answer(run_id: str, given: Sequence[str], project: Path | None, runs_dir: Path) -> None:
    """Answer the questions of a run that waits for a person.

    Without KEY=VALUE, show the questions. The agent finds the answers in its next prompt, once the run is resumed. The
    run's record keeps the answers: do not answer with a secret. A step whose budget is used up asks for a higher one:
    budget=5M (tokens), usd=20.
    """
    from pccpipe.api import answer as answer_run
    from pccpipe.api import load_project
    from pccpipe.record.state import WAITING, load_state
    from pccpipe.views.summary import answered, questions

    record = record_of(runs_dir, run_id)
    values = read_values(given, "", "db_host=10.0.0.7")
    of_project = load_project(project) if project else None
    state = answer_run(run_id, values, project=of_project, runs_dir=runs_dir) if values else load_state(record)
    if state.open_questions:
        print_lines(questions(state, record)[1:])
    elif state.status == WAITING:
        print_lines([answered(state, record)])
    else:
        print_lines([f"run {run_id} has no question: its status is {state.status}"])
