"""`pccpipe cancel`: ends a run that another process runs, or that nobody runs any more."""

from __future__ import annotations

import math
import time
from pathlib import Path

import click

from pccpipe.cli.options import Format, project_of_run_option, record_of, runs_dir_option, tell
from pccpipe.cli.process import take_secrets
from pccpipe.cli.run import make_view

LOOK_EVERY = 0.2
NO_ANSWER = 10.0
"""Seconds after which a run that no process here has gets a word on how to go on without its own."""


@click.command()
@click.argument("run_id", metavar="RUN_ID")
@project_of_run_option
@runs_dir_option
@click.option("--no-wait", is_flag=True, help="Do not wait until the run has ended.")
def cancel(*, run_id: str, project: Path | None, runs_dir: Path, no_wait: bool) -> None:
    """End a run: what runs is told to end, and its always: steps still run.

    Asked once more, the run is less patient with what does not end. A run whose process is gone is ended from here.
    Exit status: 0 when the run has ended.
    """
    from pccpipe.api import ask_to_cancel

    record = record_of(runs_dir, run_id)
    if not ask_to_cancel(run_id, runs_dir=runs_dir):
        tell([f"the process of the run {run_id} is gone: it is ended from here"])
        _end_from_here(run_id, record, project, runs_dir)
        return
    if no_wait:
        tell([f"the run {run_id} is told to end"])
        return
    tell([f"the run {run_id} is told to end; waiting for it"])
    status = _wait(record)
    tell([f"run {run_id} {status}"])


def _end_from_here(run_id: str, record: Path, project: Path | None, runs_dir: Path) -> None:
    from pccpipe.api import load_project, resume
    from pccpipe.cancel import Cancel
    from pccpipe.record.cancel_requests import whoami
    from pccpipe.record.journal import read_events
    from pccpipe.session.kept import pipeline_to_resume

    handle = Cancel()
    handle.request("cancel", whoami())
    view = make_view(Format.PLAIN, record, read_events(record))
    try:
        of_project = load_project(project) if project else None
        environ = take_secrets(pipeline_to_resume(record))
        resume(run_id, project=of_project, runs_dir=runs_dir, on_event=view, cancel=handle, environ=environ)
    finally:
        view.close()


def _wait(record: Path) -> str:
    """The run's status when it has ended, or its process is gone. Each step under `always:` has a limit of its own."""
    from pccpipe.record.lock import is_abandoned, last_holder
    from pccpipe.record.state import load_state

    hint_at = time.monotonic() + NO_ANSWER
    while True:
        gone = is_abandoned(record)
        if time.monotonic() > hint_at and (holder := last_holder(record)):
            hint_at = math.inf
            words = f"no process of this machine runs it; the last one was process {holder.pid} of {holder.host}"
            tell([f"{words}. If that is gone, go on from here, then cancel: pccpipe resume {record.name}"])
        state = load_state(record)
        if state.ended_at is not None:
            return state.status
        if gone:
            return "is interrupted: its process was killed; pccpipe cancel once more ends it from here"
        time.sleep(LOOK_EVERY)
