"""`pccpipe plan`: what would run where."""

from __future__ import annotations

from typing import Annotated

import typer

from pccpipe.cli.options import Inputs, PipelineFile, ProjectFile, read_inputs


def command(
    pipeline: PipelineFile,
    project: ProjectFile = None,
    given: Inputs = None,
    no_fallback: Annotated[bool, typer.Option("--no-fallback", help="As for `run`.")] = False,
) -> None:
    """Say what would run where, with every expression that can be known; connects to nothing."""
    from pccpipe.engine.plan import make_plan
    from pccpipe.library import load, load_project
    from pccpipe.views.plan import plan_text

    plan = make_plan(load(pipeline), load_project(project), read_inputs(given or []), fallback_allowed=not no_fallback)
    print("\n".join(plan_text(plan)))
