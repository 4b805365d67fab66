"""`pccpipe plan`: what would run where."""

from __future__ import annotations

from pccpipe.cli.options import Inputs, NoFallback, PipelineFile, ProjectFile, read_inputs, tell


def command(
    pipeline: PipelineFile, project: ProjectFile = None, given: Inputs = None, no_fallback: NoFallback = False
) -> None:
    """Say what would run where.

    With every expression that can be known evaluated, the others as they are written. Runs and connects to nothing.
    """
    from pccpipe import library
    from pccpipe.views.plan import plan_text

    fallback = library.Fallback.FORBIDDEN if no_fallback else library.Fallback.ALLOWED
    plan = library.plan(
        library.load(pipeline),
        project=library.load_project(project),
        inputs=read_inputs(given),
        fallback=fallback,
    )
    tell(plan_text(plan))
