"""`pccpipe doctor`: says what is wrong with the VM or this machine, and the command that fixes it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pccpipe.cli.options import FILE, host_key_option, project_here, project_option, runs_dir_option
from pccpipe.cli.process import take_variables
from pccpipe.cli.run_view import can_be_live
from pccpipe.model_api import ModelApi

if TYPE_CHECKING:
    from pccpipe.spec.model import Pipeline
    from pccpipe.spec.project_model import Project
    from pccpipe.views.checkup import CheckupView

endpoint_option = click.option(
    "--endpoint",
    metavar="URL",
    default=ModelApi.OPENAI.base,
    show_default=True,
    help="The base URL of the model's API.",
)


@click.command()
@project_option
@runs_dir_option
@endpoint_option
@click.option("--fix", is_flag=True, help="Do all fixes that are safe; asks nothing, and says what it did.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON, at the end.")
@host_key_option
@click.option("--pipeline", metavar="FILE", type=FILE, help="Look for its agents in its images.")
def doctor(
    *,
    project: Path | None,
    runs_dir: Path,
    endpoint: str,
    fix: bool,
    as_json: bool,
    accept_new_host_key: bool,
    pipeline: Path | None,
) -> None:
    """Check the project's VM and this machine, and name the one command that fixes each fault.

    It tries the key in OPENAI_API_KEY, if that is set, from this machine alone. --fix changes nothing on a VM that a
    run holds. Exit status: 0 all is fine (there may be warnings), 1 something is
    wrong, 3 the VM can't be reached.
    """
    from pccpipe import api
    from pccpipe.views.checkup import json_report

    of_project, loaded = project_here(project), api.load(pipeline) if pipeline else None
    view = checkup_view(of_project, loaded) if not as_json else None
    report = api.doctor(
        project=of_project,
        runs_dir=runs_dir,
        endpoint=endpoint,
        key=take_key(),
        fix=fix,
        accept_new_host_key=accept_new_host_key,
        pipeline=loaded,
        on_checked=view.checked if view else None,
        on_fixed=view.fixed if view else None,
    )
    if view:
        view.close(report)
    else:
        print(json.dumps(json_report(report), indent=2))
    sys.exit(report.exit_status)


def take_key() -> str:
    """Return the model API's key, and take it out of this process's environment; empty if none is set."""
    return take_variables(["OPENAI_API_KEY"]).get("OPENAI_API_KEY", "")


def checkup_view(project: Project, pipeline: Pipeline | None = None) -> CheckupView:
    """Return the view of checks: live on a terminal, else plain."""
    from pccpipe.checkup.checks import all_checks
    from pccpipe.views.checkup import LiveCheckup, PlainCheckup

    if can_be_live():
        return LiveCheckup(sys.stdout, [check.name for check in all_checks(project.isolation_mode, pipeline)])
    return PlainCheckup(sys.stdout)
