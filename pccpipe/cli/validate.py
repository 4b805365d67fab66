"""`pccpipe validate`: every problem of pipelines and project files, with its place."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from pccpipe.cli.options import FILE


@click.command()
@click.argument("files", type=FILE, nargs=-1, required=True, metavar="FILE...")
@click.pass_context
def validate(context: click.Context, files: Sequence[Path]) -> None:
    """Check pipelines and project files.

    Says all that is wrong with them at once, each with its line and column, and what was probably meant.
    """
    from pccpipe.errors import SpecError, UsageError

    count = 0
    for file in files:
        try:
            print(f"{file}: fine, {_checked(file)}")
        except SpecError as error:
            count += len(error.problems)
            print(error, file=sys.stderr)
        except UsageError as error:
            count += 1
            print(f"{error.message}{f' ({error.hint})' if error.hint else ''}", file=sys.stderr)
    if count:
        print(f"{count} problem{'s' if count > 1 else ''}", file=sys.stderr)
        context.exit(2)


def _checked(file: Path) -> str:
    """What the file is, in words. Raises SpecError, UsageError."""
    from pccpipe.spec.load import load_pipeline
    from pccpipe.spec.project import load_project

    if _is_project(file):
        project = load_project(file)
        return f"project {project.id}, isolation {project.isolation_mode.value}"
    pipeline = load_pipeline(file)
    return f"pipeline {pipeline.name}, {len(pipeline.steps) + len(pipeline.always)} steps at the top"


def _is_project(file: Path) -> bool:
    """Whether the file means to be a project file: by its top keys, so that also a broken one is told so."""
    try:
        text = file.read_bytes()
    except OSError:
        return False
    keys = set(re.findall(rb"^(steps|isolation_mode|vm)[ \t]*:", text, re.MULTILINE))
    return bool(keys) and b"steps" not in keys
