"""`pccpipe validate`: every problem of pipelines, with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    files: Annotated[list[Path], typer.Argument(metavar="PIPELINE...", help="YAML files.", show_default=False)],
) -> None:
    """Check pipelines, and say all that is wrong with them at once."""
    from pccpipe.errors import SpecError
    from pccpipe.spec.load import load_pipeline
    from pccpipe.spec.problem import Problem

    problems: list[Problem] = []
    for file in files:
        try:
            pipeline = load_pipeline(file)
        except SpecError as error:
            problems += error.problems
        else:
            print(f"{file}: fine ({pipeline.name}, {len(pipeline.steps)} steps)")
    if problems:
        raise SpecError(problems)
