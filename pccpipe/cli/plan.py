"""`pccpipe plan`: what would run where."""

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
    project_option,
    read_inputs,
    tell,
    which_project,
)


@click.command()
@pipeline_argument
@project_option
@input_option
@no_fallback_option
@local_option
@click.option(
    "--format",
    "output",
    type=click.Choice(("text", "json")),
    default="text",
    show_default=True,
    help="json is for programs: one object, with where each part stands.",
)
def plan(
    *, pipeline: Path, project: Path | None, given: Sequence[str], no_fallback: bool, local: bool, output: str
) -> None:
    """Say what would run where.

    With every expression that can be known evaluated, the others as they are written. Runs and connects to nothing.
    PIPELINE is a file, or the name of a built-in pipeline: default-run.
    """
    from pccpipe import api
    from pccpipe.views.plan import plan_json, plan_text

    fallback = api.Fallback.FORBIDDEN if no_fallback else api.Fallback.ALLOWED
    spec = api.load(pipeline)
    planned = api.plan(
        spec,
        project=which_project(project, pipeline=spec.path, local=local),
        inputs=read_inputs(given),
        fallback=fallback,
    )
    tell([json.dumps(plan_json(planned), indent=2)] if output == "json" else plan_text(planned))
