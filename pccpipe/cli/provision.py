"""`pccpipe provision`: makes a bare VM fit for runs."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pccpipe.cli.doctor import checkup_view, endpoint_option, take_key
from pccpipe.cli.options import (
    Format,
    format_option,
    host_key_option,
    project_here,
    project_option,
    read_duration,
    runs_dir_option,
    wait_option,
)
from pccpipe.cli.run import new_run_id
from pccpipe.cli.run_view import watched


@click.command()
@project_option
@runs_dir_option
@endpoint_option
@format_option
@wait_option
@host_key_option
def provision(
    *,
    project: Path | None,
    runs_dir: Path,
    endpoint: str,
    output: Format,
    wait: str,
    accept_new_host_key: bool,
) -> None:
    """Make the project's VM fit for runs: a bare Debian 12 or Ubuntu 22.04 or 24.04 whose user may become root.

    Installs Docker Engine (with the user in its group), rsync, git and Node 20. Builds the agents' image, and makes the
    folder for projects and the account for workspace code: `run_as` of the project file, else pccrun, which no project
    then uses by itself. Changes nothing that is already there. Provisioning is the pipeline provision.yaml, with a
    record like any run; the doctor then checks the VM. Exit status: the run's, or of a successful run the doctor's.
    """
    from pccpipe import api

    of_project, patience, run_id = project_here(project), read_duration(wait, "--wait"), new_run_id()
    key = take_key()
    with watched(output, runs_dir / run_id) as (view, cancel):
        result = api.provision(
            run_id=run_id,
            project=of_project,
            runs_dir=runs_dir,
            on_event=view,
            cancel=cancel,
            accept_new_host_key=accept_new_host_key,
            wait=patience,
        )
    if result.exit_status:
        sys.exit(result.exit_status)
    if output is Format.JSONL:
        # The output is events only: a program calls `doctor --json` itself.
        sys.exit(0)
    checkup = checkup_view(of_project)
    report = api.doctor(
        project=of_project,
        runs_dir=runs_dir,
        endpoint=endpoint,
        key=key,
        on_checked=checkup.checked,
        on_fixed=checkup.fixed,
    )
    checkup.close(report)
    sys.exit(report.exit_status)
