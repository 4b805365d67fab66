"""`pccpipe cancel`: ends a run, through the process that runs it or from here if that is gone."""

from __future__ import annotations

import math
import time
from pathlib import Path

import click

from pccpipe.cli.options import Format, print_lines, project_of_run_option, record_of, runs_dir_option
from pccpipe.cli.process import take_secrets
from pccpipe.cli.run_view import run_view

POLL_EVERY = 0.2
HINT_AFTER = 10.0
"""Seconds without a process on this machine, after which `cancel` says how to continue without it."""


@click.command()
@click.argument("run_id", metavar="RUN_ID")
@project_of_run_option
@runs_dir_option
@click.option("--no-wait", is_flag=True, help="Do not wait until the run has ended.")
def cancel(*, run_id: str, project: Path | None, runs_dir: Path, no_wait: bool) -> None:
    """Cancel a run: end its running commands, then run its steps under always:.

    A second cancel shortens the time that commands have to end. If the run's process is gone, this command resumes the
    run and cancels it. Exit status: 0 when the run has ended.
    """
    from pccpipe.api import ask_to_cancel

    record = record_of(runs_dir, run_id)
    if not ask_to_cancel(run_id, runs_dir=runs_dir):
        print_lines([f"run {run_id}: its process is gone, so this command cancels it"])
        _cancel_from_here(run_id, record, project, runs_dir)
        return
    if no_wait:
        print_lines([f"run {run_id}: cancel requested"])
        return
    print_lines([f"run {run_id}: cancel requested; waiting for its end"])
    print_lines([f"run {run_id} {_wait(record)}"])


def _cancel_from_here(run_id: str, record: Path, project: Path | None, runs_dir: Path) -> None:
    from pccpipe.api import load_project, resume
    from pccpipe.cancel import Cancel
    from pccpipe.record.cancel_requests import whoami
    from pccpipe.record.journal import read_events
    from pccpipe.session.kept import pipeline_to_resume

    handle = Cancel()
    handle.request("cancel", whoami())
    view = run_view(Format.PLAIN, record, read_events(record))
    try:
        of_project = load_project(project) if project else None
        environ = take_secrets(pipeline_to_resume(record))
        resume(run_id, project=of_project, runs_dir=runs_dir, on_event=view, cancel=handle, environ=environ)
    finally:
        view.close()


def _wait(record: Path) -> str:
    """Wait until the run has ended or its process is gone; returns the run's status.

    This ends: each step under `always:` has a limit of its own.
    """
    from pccpipe.record.lock import is_abandoned, last_holder
    from pccpipe.record.state import load_state

    hint_at = time.monotonic() + HINT_AFTER
    while True:
        gone = is_abandoned(record)
        if time.monotonic() > hint_at and (holder := last_holder(record)):
            hint_at = math.inf
            words = f"no process on this machine runs it; the last one was process {holder.pid} on {holder.host}"
            print_lines([f"{words}. If that is gone: pccpipe resume {record.name}, then cancel again"])
        state = load_state(record)
        if state.ended_at is not None:
            return state.status
        if gone:
            return f"interrupted: its process was killed. Cancel it from here: pccpipe cancel {record.name}"
        time.sleep(POLL_EVERY)
