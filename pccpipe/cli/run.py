"""`pccpipe run`: runs a pipeline, shows it, and exits with the run's status."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pccpipe.cli.crash import keep_tracebacks_in
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
from pccpipe.cli.signals import obey_no_more, obey_signals

if TYPE_CHECKING:
    from pccpipe.record.events import Event
    from pccpipe.views.queued import QueuedView, View

DOWNGRADED = 4
"""The exit status of a downgraded success, with --fail-on-downgrade."""
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


@click.command()
@pipeline_argument
@click.option("--run-id", metavar="ID", help="New for each run.  [default: made from the time]")
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

    Ctrl-C ends the run: what runs is told to end, and the steps under `always:` still run. A second Ctrl-C is less
    patient with what does not end. Exit status: 0 succeeded, 1 a step failed or timed out, 2 wrong usage or pipeline,
    3 a place was unavailable, the VM another run's, or a step lost, 4 downgraded (with --fail-on-downgrade), 5 waiting
    for a person (see `answer`), 130 or 143 cancelled.
    """
    from pccpipe.api import Fallback, load
    from pccpipe.api import run as run_pipeline
    from pccpipe.cancel import Cancel

    inputs, patience = read_inputs(given), read_duration(wait, "--wait")
    run_id = run_id if run_id is not None else new_run_id()
    rules = read_policy(policy)
    spec = load(pipeline, policy=rules)
    found = which_project(project, pipeline=spec.path, workspace=workspace, local=local, policy=rules)
    of_project = project_for(spec, found)
    cancel = Cancel()
    obey_signals(cancel)
    record = runs_dir / run_id
    keep_tracebacks_in(record)
    view = make_view(output, record)
    try:
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
    finally:
        view.close()
    if fail_on_downgrade and result.downgraded and result.exit_status == 0:
        context.exit(DOWNGRADED)
    context.exit(result.exit_status)


def new_run_id() -> str:
    """Eight letters and digits: the second, then two at random. They sort by time, and name containers."""
    import secrets  # with what it loads, a tenth of another command's start

    return f"{_base36(int(time.time()))[-6:]}{_base36(secrets.randbelow(36**2)).rjust(2, '0')}"


def _base36(number: int) -> str:
    text = ""
    while number:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return text


def make_view(output: Format, record: Path, earlier: Iterable[Event] = ()) -> QueuedView:
    """Show a run's events as `--format` says; those that came `earlier`, before it was resumed, not again.

    Nothing waits for who reads it, until the run is over.
    """
    from pccpipe.views.queued import QueuedView

    return QueuedView(_view(output, record, earlier), on_wait=obey_no_more)


def _view(output: Format, record: Path, earlier: Iterable[Event]) -> View:
    if output is Format.AUTO:
        output = Format.LIVE if can_be_live() else Format.PLAIN
    match output:
        case Format.LIVE:
            from pccpipe.views.live import LiveView

            return LiveView(sys.stdout, record, earlier)
        case Format.JSONL:
            from pccpipe.views.jsonl import JsonLinesView

            return JsonLinesView(sys.stdout.buffer)
        case _:
            from pccpipe.views.plain import PlainView

            return PlainView(sys.stdout, record, earlier)


def can_be_live() -> bool:
    """Whether lines can be painted over on the terminal that we write to."""
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb" and encoding == "utf8"
