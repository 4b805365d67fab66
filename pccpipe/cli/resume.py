"""`pccpipe resume`: goes on with a run whose process is gone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from pccpipe.cli.crash import keep_tracebacks_in
from pccpipe.cli.options import (
    Format,
    accept_fallback_option,
    downgrade_option,
    format_option,
    host_key_option,
    policy_option,
    project_of_run_option,
    read_duration,
    read_policy,
    record_of,
    runs_dir_option,
    tell,
    wait_option,
)
from pccpipe.cli.process import take_secrets
from pccpipe.cli.run import DOWNGRADED, make_view
from pccpipe.cli.signals import obey_signals

WAITS_FOR_A_PERSON = 5


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
    """Go on with a run that was stopped, whose process was killed, or that has got what it asked a person for.

    What was done is not done again; a command that still runs is followed, one that ended meanwhile is asked how; then
    the run goes on with the next step. The pipeline and its inputs are those that the run began with. Works on another
    machine too, with the run's folder. Exit status: as for `run`.
    """
    from pccpipe.api import load_project
    from pccpipe.api import resume as resume_run
    from pccpipe.cancel import Cancel
    from pccpipe.record.journal import read_events
    from pccpipe.record.state import load_state
    from pccpipe.session.kept import pipeline_to_resume
    from pccpipe.views.summary import headline, questions

    record = record_of(runs_dir, run_id)
    state = load_state(record)
    if state.open_questions:
        tell([*questions(state, record), "", headline(state, record)])
        context.exit(WAITS_FOR_A_PERSON)
    patience = read_duration(wait, "--wait")
    rules = read_policy(policy)
    of_project = load_project(project, policy=rules) if project else None
    cancel = Cancel()
    obey_signals(cancel)
    keep_tracebacks_in(record)
    view = make_view(output, record, read_events(record))
    try:
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
    finally:
        view.close()
    if fail_on_downgrade and result.downgraded and result.exit_status == 0:
        context.exit(DOWNGRADED)
    context.exit(result.exit_status)
