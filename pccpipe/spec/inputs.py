"""The inputs of a run: given values, read as each input's type, or defaults."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from pccpipe.errors import UsageError
from pccpipe.spec.model import Input, InputType, Pipeline
from pccpipe.spec.problem import did_you_mean
from pccpipe.spec.scalar import plain_scalar
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
        if isinstance(spec.default, tuple):
            return list(spec.default)
        return str((folder / str(spec.default)).resolve()) if spec.type is InputType.PATH else spec.default
    value = given[spec.name]
    if isinstance(value, Repeated):
        if spec.type is not InputType.LIST:
            raise ValueError(f"the input `{spec.name}` is given twice")
        value = ",".join(map(str, value))
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
        case InputType.LIST:
            return _listed(text)
        case InputType.STRING | InputType.PATH:
            return text


class Repeated(list[Json]):
    """The texts of an input that `--input` gave several times."""


def _listed(text: str) -> Json:
    """Read a list: JSON, or values between commas. A number keeps the text that its author wrote, as in `matrix:`."""
    if not text.lstrip().startswith("["):
        return scalars([each.strip() for each in text.split(",")] if text.strip() else [])
    try:
        # A number that would print in another way stays a text, and so do all others then.
        given = json.loads(text, parse_int=_Number, parse_float=_Number, parse_constant=_Number)
    except (ValueError, RecursionError):
        return text
    if not isinstance(given, list):
        return text
    exact = all(_is_canonical(each) for each in given if isinstance(each, _Number))
    return [plain_scalar(each) if isinstance(each, _Number) and exact else _plain(each) for each in given]


class _Number(str):
    """The text of a number in JSON."""

    __slots__ = ()


def _plain(value: Json) -> Json:
    return str(value) if isinstance(value, _Number) else value


def scalars(texts: Sequence[str]) -> list[Json]:
    """Return texts as YAML reads them without quotes; if one number would print in another way, all are texts."""
    values: list[Json] = [each if (value := plain_scalar(each)) is None else value for each in texts]
    numbers = (text for text, value in zip(texts, values, strict=True) if not isinstance(value, str | bool))
    return values if all(map(_is_canonical, numbers)) else list(texts)


def _is_canonical(number: str) -> bool:
    return str(plain_scalar(number)) == number


def input_problem(value: object, kind: str, spec: Mapping[str, Json]) -> str | None:
    """Return the problem with an input's value, as the end of a sentence; None if there is none."""
    if kind == "list":
        return _list_problem(value, spec)
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


def _list_problem(value: object, spec: Mapping[str, Json]) -> str | None:
    if not isinstance(value, list):
        return f"must be a list, not {json.dumps(value, default=str)}"
    choices = spec.get("enum")
    for each in value:
        if not isinstance(each, str | int | float) or (isinstance(each, float) and not math.isfinite(each)):
            return "must be a list of texts, numbers, true or false"
        if isinstance(choices, list) and each not in choices:
            return f"may have {', '.join(map(str, choices))}, not {json.dumps(each)}"
    return None
