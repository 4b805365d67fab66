"""`pccpipe resume`: continues a run whose process is gone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from pccpipe.cli.exit_status import WAITS_FOR_A_PERSON, exit_status
from pccpipe.cli.options import (
    Format,
    accept_fallback_option,
    downgrade_option,
    format_option,
    host_key_option,
    policy_option,
    print_lines,
    project_of_run_option,
    read_duration,
    read_policy,
    record_of,
    runs_dir_option,
    wait_option,
)
from pccpipe.cli.process import take_secrets
from pccpipe.cli.run_view import watched


@click.command()
@click.argument("run_id", metavar="RUN_ID")
@project_of_run_option
@runs_dir_option
@format_option
@wait_option
@accept_fallback_option
@policy_option
@downgrade_option
@host_key_option
@click.pass_context
def resume(
    context: click.Context,
    *,
    run_id: str,
    project: Path | None,
    runs_dir: Path,
    output: Format,
    wait: str,
    accepted: Sequence[str],
    policy: Path | None,
    fail_on_downgrade: bool,
    accept_new_host_key: bool,
) -> None:
    """Continue a run that was stopped, was killed, or has all answers that it waited for.

    Steps that ended do not run again. pccpipe follows a command that still runs, and reads the result of one that ended
    meanwhile; then it goes on with the next step. The pipeline and its inputs are those of the run's beginning. With
    the run's folder, this works on another machine too. Exit status: as for `run`.
    """
    from pccpipe.api import load_project
    from pccpipe.api import resume as resume_run
    from pccpipe.record.journal import read_events
    from pccpipe.record.state import load_state
    from pccpipe.session.kept import pipeline_to_resume
    from pccpipe.views.summary import headline, questions

    record = record_of(runs_dir, run_id)
    state = load_state(record)
    if state.open_questions:
        print_lines([*questions(state, record), "", headline(state, record)])
        context.exit(WAITS_FOR_A_PERSON)
    patience = read_duration(wait, "--wait")
    rules = read_policy(policy)
    of_project = load_project(project, policy=rules) if project else None
    with watched(output, record, read_events(record)) as (view, cancel):
        result = resume_run(
            run_id,
            project=of_project,
            runs_dir=runs_dir,
            accept_fallback=accepted,
            on_event=view,
            cancel=cancel,
            accept_new_host_key=accept_new_host_key,
            wait=patience,
            environ=take_secrets(pipeline_to_resume(record, rules)),
            policy=rules,
        )
    context.exit(exit_status(result, fail_on_downgrade=fail_on_downgrade))
