"""`pccpipe plan`: shows what would run where."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from pccpipe.cli.options import (
    input_option,
    local_option,
    no_fallback_option,
    pipeline_argument,
    policy_option,
    print_lines,
    project_option,
    read_inputs,
    read_policy,
    which_project,
)


@click.command()
@pipeline_argument
@project_option
@input_option
@no_fallback_option
@local_option
@policy_option
@click.option(
    "--format",
    "output",
    type=click.Choice(("text", "json")),
    default="text",
    show_default=True,
    help="json is for programs: one object, with the file and line of each part.",
)
def plan(
    *,
    pipeline: Path,
    project: Path | None,
    given: Sequence[str],
    no_fallback: bool,
    local: bool,
    policy: Path | None,
    output: str,
) -> None:
    """Show what would run where.

    Expressions whose values are known are evaluated; others appear as written. Runs and connects to nothing. PIPELINE
    is a file, or the name of a built-in pipeline: default-run.
    """
    from pccpipe import api
    from pccpipe.views.plan import plan_json, plan_text

    fallback = api.Fallback.FORBIDDEN if no_fallback else api.Fallback.ALLOWED
    rules = read_policy(policy)
    spec = api.load(pipeline, policy=rules)
    planned = api.plan(
        spec,
        project=which_project(project, pipeline=spec.path, local=local, policy=rules),
        inputs=read_inputs(given),
        fallback=fallback,
        policy=rules,
    )
    print_lines([json.dumps(plan_json(planned), indent=2)] if output == "json" else plan_text(planned))
