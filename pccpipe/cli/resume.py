"""`pccpipe resume`: continues a run whose process is gone, or all that wait for a model and are due."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from pccpipe.policy.policy import Policy


@click.command()
@click.argument("run_id", metavar="[RUN_ID]", required=False)
@click.option("--due", is_flag=True, help="Continue each run that waits for a model and is due, one after another.")
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
    run_id: str | None,
    due: bool,
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
    the run's folder, this works on another machine too. Exit status: as for `run`; with --due, the highest of its runs.
    """
    if due == (run_id is not None) or (due and (project or accepted)):
        raise click.UsageError("name a run, or give --due, without --project and --accept-fallback")
    patience = read_duration(wait, "--wait")
    rules = read_policy(policy)
    if run_id is None:
        context.exit(_resume_due(runs_dir, output, patience, rules, accept_new_host_key=accept_new_host_key))
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


def _resume_due(
    runs_dir: Path, output: Format, wait: float, policy: Policy | None, *, accept_new_host_key: bool
) -> int:
    """Continue the runs that are due; return the highest exit status."""
    import time

    from pccpipe.due import DueRun, as_error, continue_if_due, worst_status
    from pccpipe.errors import PccpipeError, UsageError, VmBusy
    from pccpipe.outcome import Outcome
    from pccpipe.record.due import due_runs, refuse_strange
    from pccpipe.record.journal import read_events
    from pccpipe.session.job import Caller
    from pccpipe.session.kept import pipeline_to_resume
    from pccpipe.views.text import harmless

    resumed: list[DueRun] = []
    environ: Mapping[str, str] = {}
    for entry in due_runs(runs_dir.absolute(), time.time()):
        record = runs_dir.absolute() / entry.run_id
        try:
            refuse_strange(record)
            environ = {**environ, **take_secrets(pipeline_to_resume(record, policy))}
        except (PccpipeError, OSError) as error:
            resumed.append(DueRun(entry.run_id, error=as_error(record, error)))
        else:
            with watched(output, record, read_events(record)) as (view, cancel):
                caller = Caller(view, cancel, accept_new_host_key, wait, environ, {}, {}, policy)
                resumed.append(continue_if_due(record, caller))
        last = resumed[-1]
        if last.error:
            hint = last.error.hint if isinstance(last.error, UsageError | VmBusy) else ""
            click.echo(harmless(f"{last.run_id}: {last.error}" + (f"\nfix: {hint}" if hint else "")), err=True)
        if last.result and last.result.outcome is Outcome.CANCELLED:
            break
    if not resumed:
        print_lines([f"no run in {runs_dir} is due"])
    return worst_status(resumed)
