"""`pccpipe schema`: the published JSON Schemas."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Schema(StrEnum):
    PIPELINE = "pipeline"
    PROJECT = "project"
    BUILDER_RESULT = "builder-result"
    REVIEWER_RESULT = "reviewer-result"


def command(name: Annotated[Schema, typer.Argument(metavar="NAME", help="Which one.")] = Schema.PIPELINE) -> None:
    """Print a JSON Schema, for an editor.

    One of pipeline, project, builder-result, reviewer-result.
    """
    from pccpipe.spec.schema import schema_text

    print(schema_text(name.value), end="")
