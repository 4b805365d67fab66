"""`include:`: reads the included pipelines, and merges them into one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from pccpipe import limits
from pccpipe.errors import UsageError
from pccpipe.spec.built_in import built_in, built_in_names, may_be_built_in
from pccpipe.spec.merge import merge
from pccpipe.spec.paths import beside, is_file
from pccpipe.spec.policy_check import IncludeCheck
from pccpipe.spec.position import Position
from pccpipe.spec.problem import Problem, Rule, did_you_mean
from pccpipe.spec.schema import structure_problems
from pccpipe.spec.snapshot import with_paths
from pccpipe.spec.source import BadYaml, Source, read_source
from pccpipe.spec.written import keep_texts


def find_pipeline(path: Path) -> Path:
    """Return the file that a path on a command line names; if there is none, the built-in pipeline of that name.

    Raises UsageError if there is neither.
    """
    try:
        if path.exists():
            return path
    except OSError:
        return path  # its reader reports the error
    name = str(path)
    found = built_in(name) if may_be_built_in(name) else None
    if found:
        return found
    near = did_you_mean(name, built_in_names()) if may_be_built_in(name) else ""
    raise UsageError(f"there is no file {path}", f"built-in pipelines: {near}" if near else "")


def with_included(
    source: Source, problems: list[Problem], check: IncludeCheck | None = None
) -> tuple[Source | None, list[Problem]]:
    """Merge a pipeline with all that it includes; return the whole, and the problems with the changes.

    Adds problems with the structure of the files to `problems`. The whole is None if a file is missing or unreadable.
    """
    chain = [source]
    while name := _included(chain[-1]):
        at = chain[-1].of_value(("include",))
        try:
            file = _find(name, chain)
            if check and (refused := check.include_refusal(file, Path(source.file).parent)):
                return None, [Problem(at, refused, line=chain[-1].line(at.line), rule=Rule.POLICY)]
            if not is_file(file):
                raise UsageError(f"there is no file {file}")
            found = read_source(file)
            keep_texts(found)
            _check_limits([*chain, found])
        except BadYaml as bad:
            return None, [
                Problem(each.position, each.message, _included_at(each.hint, at), each.line, Rule.YAML)
                for each in (bad, *bad.others)
            ]
        except OSError as error:
            return None, [_problem(chain[-1], at, UsageError(f"cannot read the included file: {error.strerror}"))]
        except UsageError as error:
            return None, [_problem(chain[-1], at, error)]
        chain.append(found)
        problems += structure_problems(found, "pipeline")
    whole = chain.pop()
    changes: list[Problem] = []
    for over in reversed(chain):
        whole, wrong = merge(over, whole)
        changes += wrong
    whole = with_paths(whole)
    if not problems:
        # The parts are valid, so an editor cannot show a problem of the whole.
        changes += [replace(problem, rule=Rule.MEANING) for problem in structure_problems(whole, "pipeline")]
    return whole, changes


def located(problem: Problem, source: Source) -> Problem:
    """Return the problem; one of an included file with its line, and where the file is included."""
    if problem.position.file not in source.included:
        return problem
    lines = source.included[problem.position.file]
    line = lines[problem.position.line - 1] if problem.position.line <= len(lines) else ""
    unset = "; `unset:` removes a key of a step" if source.changes else ""
    return replace(problem, line=line, hint=_included_at(problem.hint, source.of_value(("include",)), unset))


def _included(source: Source) -> str:
    name = source.data.get("include") if isinstance(source.data, dict) else None
    return name if isinstance(name, str) else ""


def _find(name: str, chain: Sequence[Source]) -> Path:
    """Return the path of the included file, which may not exist. Raises UsageError."""
    if may_be_built_in(name):
        found = built_in(name)
        if found is None:
            hint = f"{did_you_mean(name, built_in_names())} (a file's name has an ending, or begins with ./)"
            raise UsageError(f"there is no built-in pipeline `{name}`", hint)
    else:
        try:
            found = beside(Path(chain[-1].file).parent, name)
        except ValueError as error:
            raise UsageError(f"the path {error}") from None
    files = [Path(each.file) for each in chain]
    for index, file in enumerate(files):
        if file.resolve() == found.resolve():
            words = " -> ".join(str(each) for each in (*files[index:], file))
            raise UsageError(f"this file includes itself: {words}")
    return found


def _check_limits(chain: Sequence[Source]) -> None:
    if len(chain) > limits.INCLUDED.most:
        raise UsageError(
            f"over {limits.INCLUDED.most} files include one another", "let one of them include a file further down"
        )
    if sum(len(each.text) for each in chain) > limits.PIPELINE.most:
        raise UsageError(f"with its included files, the pipeline has over {limits.PIPELINE.most // 1024} KiB")
    if sum(each.count for each in chain) > limits.PIPELINE_VALUES.most:
        raise UsageError(f"with its included files, the pipeline has over {limits.PIPELINE_VALUES.most:,} values")


def _problem(source: Source, at: Position, wrong: UsageError) -> Problem:
    return Problem(at, wrong.message, wrong.hint, source.line(at.line))


def _included_at(hint: str, at: Position, more: str = "") -> str:
    return f"{hint} (included at {at}{more})" if hint else f"included at {at}{more}"
