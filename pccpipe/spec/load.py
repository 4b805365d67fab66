"""Loads a pipeline file into a `Pipeline`, or reports all its problems."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

from pccpipe import limits
from pccpipe.errors import PolicyRefused, SpecError, UsageError
from pccpipe.spec.build import build_pipeline
from pccpipe.spec.check import meaning_problems
from pccpipe.spec.data import walk
from pccpipe.spec.include import find_pipeline, located, with_included
from pccpipe.spec.model import Pipeline
from pccpipe.spec.policy_check import IncludeCheck, PolicyCheck
from pccpipe.spec.problem import Problem, Rule
from pccpipe.spec.schema import foreign_problem, schema_file_problems, structure_problems
from pccpipe.spec.source import BadYaml, Source, parse_source, read_source
from pccpipe.spec.written import keep_texts

NO_FILE = "<pipeline>"
"""The name, in positions, of a pipeline that is not a file."""
NO_FOLDER = Path("/<no root>")
"""The folder of such a pipeline if its caller names none: it does not exist."""


def load_pipeline(
    path: Path, folder: Path | None = None, *, older: bool = False, check: IncludeCheck | None = None
) -> Pipeline:
    """Read and check a pipeline. Raises SpecError with every problem, UsageError if the file can't be read.

    Args:
        path: the file; if there is none, the name of a built-in pipeline.
        folder: the folder of the files that it names; default: its own.
        older: read it as version 0.1, in which its run began: scripts continue after a failing command.
        check: judges what the pipeline asks for, before a file that it names is opened.
    """
    path = path if folder else find_pipeline(path)
    folder = folder or path.parent
    source, problems = _read(path)
    return _checked(source, problems, folder, path.name, older=older, check=check)


def load_text(text: str, folder: Path, *, check: IncludeCheck | None = None) -> Pipeline:
    """Read and check a pipeline that is not a file. Raises SpecError with every problem.

    Args:
        folder: the folder of the files that it names.
        check: as for `load_pipeline`.
    """
    source, problems = _parsed(lambda: parse_source(text.encode(), NO_FILE))
    return _checked(source, problems, folder, NO_FILE, older=False, check=check)


def _checked(
    source: Source, problems: list[Problem], folder: Path, name: str, *, older: bool, check: IncludeCheck | None
) -> Pipeline:
    if foreign := foreign_problem(source):
        raise SpecError([foreign])
    problems += structure_problems(source, "pipeline")
    whole: Source | None = source
    more: list[Problem] = []
    if isinstance(source.data, dict) and "include" in source.data:
        whole, more = with_included(source, problems, check)
    if check:
        refused = [*check.refusals(whole or source, folder), *(each for each in more if each.rule is Rule.POLICY)]
        if refused:
            # Checking its meaning would open the files that it names.
            _raise_if([located(problem, whole or source) for problem in (*problems, *refused)], [])
    if whole:
        problems = [located(problem, whole) for problem in problems]
        more = [located(problem, whole) for problem in (*more, *meaning_problems(whole, folder, older=older))]
    _raise_if(problems, more)
    return build_pipeline(whole or source, folder / name, stops_at_failure=not older)


def load_source(
    path: Path, schema: str, more: Callable[[Source], list[Problem]], check: PolicyCheck | None = None
) -> Source:
    """Read a file; check it against a schema, and with `more`. Raises SpecError, UsageError."""
    source, problems = _read(path)
    problems += structure_problems(source, schema)
    if check and (refused := check.refusals(source, path.parent)):
        _raise_if([*problems, *refused], [])
    _raise_if(problems, [*_infinities(source), *more(source)])
    return source


def _infinities(source: Source) -> Iterator[Problem]:
    """Yield a problem for each number that passes any check of its size."""
    for path, value in walk(source.data):
        if isinstance(value, float) and not math.isfinite(value):
            position = source.of_value(path)
            yield Problem(position, f"`{value}` is not a usable number", line=source.line(position.line))


def _read(path: Path) -> tuple[Source, list[Problem]]:
    """Read the file, and the problems with single keys of its YAML. Raises SpecError, UsageError."""
    try:
        return _parsed(lambda: read_source(path))
    except OSError as error:
        raise _unreadable(path, error) from error


def _parsed(read: Callable[[], Source]) -> tuple[Source, list[Problem]]:
    try:
        source = read()
        keep_texts(source)
        return source, []
    except BadYaml as bad:
        problems = [
            Problem(each.position, each.message, each.hint, each.line, Rule.YAML) for each in (bad, *bad.others)
        ]
        if bad.source is None:
            raise SpecError(problems) from None
        keep_texts(bad.source)
        return bad.source, problems


def _raise_if(problems: list[Problem], more: list[Problem]) -> None:
    """Raise SpecError for all problems; leave out each of `more` at a position that has one already."""
    known = {position for problem in problems for position in (problem.position, *problem.covers)}
    problems = [*problems, *(problem for problem in more if problem.position not in known)]
    if problems:
        problems.sort(key=lambda problem: (problem.position, problem.message))
        refused = any(problem.rule is Rule.POLICY for problem in problems)
        raise (PolicyRefused if refused else SpecError)(problems[: limits.PIPELINE_PROBLEMS.most])


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
            return UsageError(f"cannot read {path}: permission denied")
        case _:
            return UsageError(f"cannot read {path}: {error.strerror}")
