"""A pipeline file to a `Pipeline`, with all its problems known; and the inputs that a run gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pccpipe.errors import SpecError, UsageError
from pccpipe.spec.build import build_pipeline
from pccpipe.spec.check import input_problem, meaning_problems
from pccpipe.spec.model import Input, InputType, Pipeline
from pccpipe.spec.problem import Problem, did_you_mean
from pccpipe.spec.schema import structure_problems
from pccpipe.spec.source import BadYaml, Data, Source, read_source
from pccpipe.values import Json


def load_pipeline(path: Path) -> Pipeline:
    """Read and check a pipeline. Raises SpecError with every problem, UsageError if the file can't be read."""
    source = load_source(path, "pipeline", lambda source: meaning_problems(source, path.parent))
    return build_pipeline(source, path)


def load_source(path: Path, schema: str, more: Callable[[Source], list[Problem]]) -> Source:
    """Read a file and check it against a schema, and by `more`. Raises SpecError, UsageError."""
    try:
        source = read_source(path)
    except BadYaml as bad:
        text = path.read_bytes().decode("utf-8", "replace").splitlines()
        line = text[bad.position.line - 1] if bad.position.line <= len(text) else ""
        raise SpecError([Problem(bad.position, bad.message, bad.hint, line)]) from None
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    problems = structure_problems(source, schema)
    told = {problem.position for problem in problems}
    # What is wrong at a place already is not told again in other words.
    problems += [problem for problem in more(source) if problem.position not in told]
    if problems:
        raise SpecError(sorted(problems, key=lambda problem: (problem.position, problem.message)))
    return source


def resolve_inputs(pipeline: Pipeline, given: Mapping[str, Json]) -> Mapping[str, Json]:
    """Each input's value: what was given (text is read as the input's type), or its default.

    Paths become absolute: a given one from the current folder, a default from the pipeline's. Raises UsageError for all
    that is wrong at once.
    """
    wrong: list[str] = []
    values: dict[str, Json] = {}
    for name in given:
        if name not in pipeline.inputs:
            hint = did_you_mean(name, pipeline.inputs)
            wrong.append(f"the pipeline has no input `{name}`{f': {hint}' if hint else ''}")
    for spec in pipeline.inputs.values():
        try:
            values[spec.name] = _value(spec, given, pipeline.path.parent)
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise UsageError("\n".join(wrong))
    return values


def _value(spec: Input, given: Mapping[str, Json], folder: Path) -> Json:
    if spec.name not in given:
        if spec.default is None:
            about = f" ({spec.description.rstrip('.')})" if spec.description else ""
            raise ValueError(f"the input `{spec.name}` is missing{about}: give it with --input {spec.name}=VALUE")
        return str((folder / str(spec.default)).resolve()) if spec.type is InputType.PATH else spec.default
    value = given[spec.name]
    if isinstance(value, str):
        value = _read(spec, value)
    limits: dict[str, Data] = {"minimum": spec.minimum, "maximum": spec.maximum}
    if spec.choices:
        limits["enum"] = list(spec.choices)
    problem = input_problem(value, spec.type.value, limits)
    if problem:
        raise ValueError(f"the input `{spec.name}` {problem}")
    if spec.type is InputType.PATH:
        path = Path(str(value)).expanduser().absolute()
        if not path.exists():
            raise ValueError(f"the input `{spec.name}` names {path}, which does not exist")
        return str(path)
    return value


def _read(spec: Input, text: str) -> Json:
    """Text as the input's type; as it is if it is none, for `input_problem` to say so."""
    match spec.type:
        case InputType.INTEGER | InputType.NUMBER:
            for read in (int, float) if spec.type is InputType.NUMBER else (int,):
                try:
                    return read(text)
                except ValueError:
                    continue
            return text
        case InputType.BOOLEAN:
            return {"true": True, "false": False}.get(text.lower(), text)
        case InputType.STRING | InputType.PATH:
            return text
