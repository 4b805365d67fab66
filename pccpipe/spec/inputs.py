"""The inputs of a run: given values, read as each input's type, or defaults."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pccpipe.errors import UsageError
from pccpipe.spec.model import Input, InputType, Pipeline
from pccpipe.spec.problem import did_you_mean
from pccpipe.values import Json


def resolve_inputs(pipeline: Pipeline, given: Mapping[str, Json]) -> Mapping[str, Json]:
    """Return each input's value: the given one (text is read as the input's type), or its default.

    Paths become absolute: a given one from the current folder, a default from the pipeline's folder. Raises one
    UsageError for all problems.
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
    limits: dict[str, Json] = {"minimum": spec.minimum, "maximum": spec.maximum}
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
    """Read text as the input's type; return it unchanged if that fails, for `input_problem` to report."""
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


def input_problem(value: object, kind: str, spec: Mapping[str, Json]) -> str | None:
    """Return the problem with an input's value, as the end of a sentence; None if there is none."""
    right: dict[str, type | tuple[type, ...]] = {
        "string": str,
        "path": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
    }
    if not isinstance(value, right.get(kind, object)) or (isinstance(value, bool) and kind != "boolean"):
        words = {"integer": "a whole number", "number": "a number", "boolean": "true or false"}
        return f"must be {words.get(kind, 'text')}, not {json.dumps(value)}"
    choices = spec.get("enum")
    if isinstance(choices, list) and value not in choices:
        return f"must be one of {', '.join(str(choice) for choice in choices)}, not {json.dumps(value)}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = spec.get("minimum"), spec.get("maximum")
        if isinstance(low, int | float) and value < low:
            return f"must be at least {low:g}, not {value:g}"
        if isinstance(high, int | float) and value > high:
            return f"must be at most {high:g}, not {value:g}"
    return None
