"""A pipeline file to a `Pipeline`, with all its problems known; and the inputs that a run gets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pccpipe.errors import SpecError, UsageError
from pccpipe.spec.build import build_pipeline
from pccpipe.spec.check import meaning_problems
from pccpipe.spec.model import Pipeline
from pccpipe.spec.problem import Problem, Rule
from pccpipe.spec.schema import schema_file_problems, structure_problems
from pccpipe.spec.source import BadYaml, Source, read_source


def load_pipeline(path: Path, folder: Path | None = None) -> Pipeline:
    """Read and check a pipeline. Raises SpecError with every problem, UsageError if the file can't be read.

    Args:
        folder: where the files that it names are; default: its own.
    """
    folder = folder or path.parent
    source = load_source(path, "pipeline", lambda source: meaning_problems(source, folder))
    return build_pipeline(source, folder / path.name)


def load_source(path: Path, schema: str, more: Callable[[Source], list[Problem]]) -> Source:
    """Read a file and check it against a schema, and by `more`. Raises SpecError, UsageError."""
    try:
        source = read_source(path)
    except BadYaml as bad:
        raise SpecError([Problem(bad.position, bad.message, bad.hint, bad.line, Rule.YAML)]) from None
    except OSError as error:
        raise _unreadable(path, error) from error
    problems = structure_problems(source, schema)
    told = {position for problem in problems for position in (problem.position, *problem.covers)}
    # What is wrong at a place already is not told again in other words.
    problems += [problem for problem in more(source) if problem.position not in told]
    if problems:
        raise SpecError(sorted(problems, key=lambda problem: (problem.position, problem.message)))
    return source


def check_schema_file(path: Path) -> None:
    """Check a result's schema in a file of its own. Raises SpecError, UsageError."""
    try:
        problems = schema_file_problems(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    if problems:
        raise SpecError(problems)


def _unreadable(path: Path, error: OSError) -> UsageError:
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return UsageError(f"there is no file {path}")
        case IsADirectoryError():
            return UsageError(f"{path} is a folder", "name the files in it")
        case PermissionError():
            return UsageError(f"cannot read {path}: you have no permission to")
        case _:
            return UsageError(f"cannot read {path}: {error.strerror}")
