"""`pccpipe run`: runs a pipeline, shows it, and exits with the run's status."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import click

from pccpipe.cli.exit_status import exit_status
from pccpipe.cli.options import (
    FILE,
    Format,
    accept_fallback_option,
    downgrade_option,
    format_option,
    host_key_option,
    input_option,
    local_option,
    no_fallback_option,
    pipeline_argument,
    policy_option,
    project_for,
    project_option,
    read_duration,
    read_inputs,
    read_policy,
    runs_dir_option,
    wait_option,
    which_project,
)
from pccpipe.cli.process import take_secrets
from pccpipe.cli.run_view import watched

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


@click.command()
@pipeline_argument
@click.option("--run-id", metavar="ID", help="A new name for this run.  [default: made from the time]")
@project_option
@click.option("--workspace", type=FILE, metavar="DIR", help="The code to work on.  [default: this folder]")
@input_option
@runs_dir_option
@format_option
@wait_option
@no_fallback_option
@accept_fallback_option
@local_option
@policy_option
@downgrade_option
@host_key_option
@click.pass_context
def run(
    context: click.Context,
    *,
    pipeline: Path,
    run_id: str | None,
    project: Path | None,
    workspace: Path | None,
    given: Sequence[str],
    runs_dir: Path,
    output: Format,
    wait: str,
    no_fallback: bool,
    accepted: Sequence[str],
    local: bool,
    policy: Path | None,
    fail_on_downgrade: bool,
    accept_new_host_key: bool,
) -> None:
    """Run a pipeline: a file, or a built-in one by its name, default-run.

    Ctrl-C cancels the run: pccpipe ends the running commands, and then runs the steps under `always:`. A second Ctrl-C
    shortens the time that commands have to end.

    Exit status: 0 succeeded, 1 a step failed or timed out, 2 wrong usage or pipeline, 3 a place was unavailable, the VM
    was busy, or a step was lost, 4 downgraded (with --fail-on-downgrade), 5 waiting for a person (see `answer`) or
    for a model (see `resume --due`), 130 or 143 cancelled.
    """
    from pccpipe.api import Fallback, load
    from pccpipe.api import run as run_pipeline

    inputs, patience = read_inputs(given), read_duration(wait, "--wait")
    run_id = run_id if run_id is not None else new_run_id()
    rules = read_policy(policy)
    spec = load(pipeline, policy=rules)
    found = which_project(project, pipeline=spec.path, workspace=workspace, local=local, policy=rules)
    of_project = project_for(spec, found)
    with watched(output, runs_dir / run_id) as (view, cancel):
        result = run_pipeline(
            spec,
            run_id=run_id,
            project=of_project,
            workspace=workspace,
            inputs=inputs,
            runs_dir=runs_dir,
            fallback=Fallback.FORBIDDEN if no_fallback else Fallback.ALLOWED,
            accept_fallback=accepted,
            on_event=view,
            cancel=cancel,
            accept_new_host_key=accept_new_host_key,
            wait=patience,
            environ=take_secrets(spec),
            policy=rules,
        )
    context.exit(exit_status(result, fail_on_downgrade=fail_on_downgrade))


def new_run_id() -> str:
    """Return six digits of the time and two random ones, in base 36: ids sort by time, and name containers."""
    import secrets  # slow to load: a tenth of another command's start

    return f"{_base36(int(time.time()))[-6:]}{_base36(secrets.randbelow(36**2)).rjust(2, '0')}"


def _base36(number: int) -> str:
    text = ""
    while number:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return text
