"""`pccpipe provision`: makes a bare VM fit for runs."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pccpipe.cli.doctor import endpoint_option, make_view
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
from pccpipe.cli.process import take_variables
from pccpipe.cli.run import make_view as make_run_view
from pccpipe.cli.run import new_run_id
from pccpipe.cli.signals import obey_signals


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
    """Make the project's VM fit for runs: a bare Debian 12 or Ubuntu 22.04 or 24.04 on which the user may become root.

    Docker Engine with the user in its group, rsync, git, Node 20, the image that agents run in, the folder for
    projects, and the account that workspace code runs as (`run_as` of the project file, else pccrun: no project is
    switched to it). What is there stays as it is. It is the pipeline provision.yaml, with a record like any run's;
    then the doctor looks at it all. Exit status: that of the run, or if it succeeded of `pccpipe doctor`.
    """
    from pccpipe import api
    from pccpipe.cancel import Cancel

    of_project, patience, run_id = project_here(project), read_duration(wait, "--wait"), new_run_id()
    key = take_variables(["OPENAI_API_KEY"]).get("OPENAI_API_KEY", "")
    cancel = Cancel()
    obey_signals(cancel)
    view = make_run_view(output, runs_dir / run_id)
    try:
        result = api.provision(
            run_id=run_id,
            project=of_project,
            runs_dir=runs_dir,
            on_event=view,
            cancel=cancel,
            accept_new_host_key=accept_new_host_key,
            wait=patience,
        )
    finally:
        view.close()
    if result.exit_status:
        sys.exit(result.exit_status)
    if output is Format.JSONL:
        # One kind of output: whoever reads events asks the doctor himself.
        sys.exit(0)
    checkup = make_view(of_project)
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
