"""Structure: what the published JSON Schemas say of a file, in the user's words.

Each error of the schema library becomes at most one problem, in words of our own: it is what editors show, with better
words.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pccpipe.data_files import data_path
from pccpipe.spec.problem import Problem, did_you_mean
from pccpipe.spec.source import Data, Key, Source

if TYPE_CHECKING:
    from jsonschema import Draft7Validator, ValidationError

BODIES = ("run", "upload", "download", "diff", "remove", "build", "repeat", "parallel")
BUILT_IN_RESULTS = ("builder-result", "reviewer-result")

_TYPES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping (`key: value` lines)",
    "null": "nothing",
}


def structure_problems(source: Source, schema: str) -> list[Problem]:
    """Everything that the schema of that name (`pipeline`, `project`) finds wrong, in order of position."""
    found: dict[tuple[int, int, str], Problem] = {}
    for error in _validator(schema).iter_errors(source.data):
        for problem in _problems(error, source):
            # One cause can break several rules: the first word on a place counts.
            found.setdefault((problem.position.line, problem.position.column, ""), problem)
    return sorted(found.values(), key=lambda problem: problem.position)


def find_schema(name: str, folder: Path) -> Mapping[str, object]:
    """A result's schema: a built-in one by its name, or a file's path relative to the pipeline.

    Raises OSError if there is no such file, ValueError if it is no JSON Schema.
    """
    from jsonschema import Draft7Validator
    from jsonschema.exceptions import SchemaError

    path = data_path("schemas", f"{name}.schema.json") if name in BUILT_IN_RESULTS else folder / name
    schema = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(schema, dict):
        raise ValueError("a JSON Schema is an object")
    try:
        Draft7Validator.check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"{error.json_path}: {error.message}") from None
    return schema


@functools.cache
def schema_text(name: str) -> str:
    """The text of a published schema: `pipeline`, `project`, `builder-result`, `reviewer-result`."""
    return data_path("schemas", f"{name}.schema.json").read_text(encoding="utf-8")


@functools.cache
def _validator(name: str) -> Draft7Validator:
    from jsonschema import Draft7Validator

    return Draft7Validator(json.loads(schema_text(name)))


def _problems(error: ValidationError, source: Source) -> Iterator[Problem]:
    path = cast("tuple[Key, ...]", tuple(error.absolute_path))
    match error.validator:
        case "additionalProperties":
            yield from _unknown_keys(error, path, source)
        case "not":
            words = _misplaced(path, source.data)
            if words:
                yield _problem(source, path, *words, at_key=True)
        case "required":
            yield from _missing_keys(error, path, source)
        case "anyOf":
            yield from _none_of(error, path, source)
        case "propertyNames":
            yield from _bad_names(error, path, source)
        case _ if "propertyNames" in error.absolute_schema_path:
            yield from _bad_names(error, path, source)
        case _:
            yield _problem(source, path, *_bad_value(error, path))


def _problem(source: Source, path: tuple[Key, ...], message: str, hint: str = "", *, at_key: bool = False) -> Problem:
    position = source.of_key(path) if at_key else source.of_value(path)
    return Problem(position, message, hint, source.line(position.line))


def _unknown_keys(error: ValidationError, path: tuple[Key, ...], source: Source) -> Iterator[Problem]:
    known = list(_known_at(error))
    for key in cast("dict[str, Data]", error.instance):
        if key not in known:
            where = _where(path)
            yield _problem(source, (*path, key), f"`{key}` is no key of {where}", did_you_mean(key, known), at_key=True)


def _missing_keys(error: ValidationError, path: tuple[Key, ...], source: Source) -> Iterator[Problem]:
    instance = cast("dict[str, Data]", error.instance)
    for key in cast("Sequence[str]", error.validator_value):
        if key not in instance:
            near = did_you_mean(key, [name for name in instance if name not in _known_at(error)])
            if near.startswith("did you mean"):
                return  # the misspelt key is a problem of its own, and names this one
            yield _problem(source, path, f"{_where(path)} needs the key `{key}`")
            return


def _known_at(error: ValidationError) -> Mapping[str, object]:
    return cast("Mapping[str, Mapping[str, object]]", error.schema).get("properties", {})


def _none_of(error: ValidationError, path: tuple[Key, ...], source: Source) -> Iterator[Problem]:
    wanted = [
        name for option in cast("list[dict[str, list[str]]]", error.validator_value) for name in option["required"]
    ]
    if tuple(wanted) == BODIES:
        given = [key for key in cast("dict[str, Data]", error.instance) if key not in _known_at(error)]
        if any(did_you_mean(key, BODIES).startswith("did you mean") for key in given):
            return  # the misspelt key is a problem of its own
        hint = f"it needs one of {', '.join(f'`{name}`' for name in BODIES)}"
        yield _problem(source, path, "this step does nothing", hint)
    else:
        names = ", ".join(f"`{name}`" for name in wanted)
        yield _problem(source, path, f"one of {names} is missing here")


def _misplaced(path: tuple[Key, ...], data: Data) -> tuple[str, str] | None:
    """The words for a key that is known, but not beside the others that stand there; None if those are to blame."""
    key = str(path[-1])
    around: Any = data
    for part in path[:-1]:
        around = around[part]
    beside = cast("dict[str, Data]", around)
    bodies = [name for name in beside if name in BODIES]
    if len(path) > 1 and path[-2] == "fallback":
        return f"the fallback of an upload takes only `on: local`, not `{key}`", ""
    if key in BODIES:
        if key == bodies[0]:
            return None
        return f"`{key}` cannot stand beside `{bodies[0]}`", "a step does one thing: make two steps of it"
    if key == "steps":
        return "`steps` needs a `repeat:` beside it", "for steps side by side write `parallel:` with the steps under it"
    if key == "exclude":
        return "`exclude` belongs to an `upload:`", ""
    if bodies:
        return f"`{key}` cannot stand beside `{bodies[0]}`", "it belongs to a step with `run:`"
    if key in {"upstream", "allow"} and "from" in beside:
        return (
            f"`{key}` needs `via: proxy` beside it",
            "without it the step gets the value itself, and calls whom it likes",
        )
    if "from" in beside:
        return f"`{key}` cannot stand beside `from: {beside['from']}`", ""
    return f"`{key}` cannot stand here", ""


def _bad_names(error: ValidationError, path: tuple[Key, ...], source: Source) -> Iterator[Problem]:
    name = str(error.instance)
    message = f"`{name}` will not do as a name here"
    yield _problem(source, (*path, name), message, "use letters, digits and `_`, not a digit first", at_key=True)


def _bad_value(error: ValidationError, path: tuple[Key, ...]) -> tuple[str, str]:
    what = f"`{path[-1]}`" if path and isinstance(path[-1], str) else _where(path)
    value: object = error.instance
    wanted: Any = error.validator_value
    match error.validator:
        case "type":
            types = wanted if isinstance(wanted, list) else [wanted]
            return f"{what} is to be {' or '.join(_TYPES[kind] for kind in types)}, and is {_shown(value)}", _type_hint(
                value, types
            )
        case "enum":
            known = [str(choice) for choice in wanted]
            return f"{_shown(value)} is no value of {what}", did_you_mean(str(value), known)
        case "minimum" | "exclusiveMinimum":
            return f"{what} is to be at least {wanted}, and is {_shown(value)}", ""
        case "maximum":
            return f"{what} is to be at most {wanted}, and is {_shown(value)}", ""
        case "minItems" | "minLength" | "minProperties":
            return f"{what} is empty", ""
        case "maxProperties":
            return f"{what} takes one of its keys, and has {len(cast('dict[str, Data]', value))}", ""
        case "maxItems" | "maxLength":
            return f"{what} has more than the {wanted} that it may have", ""
        case "uniqueItems":
            return f"{what} has something in it twice", ""
        case "pattern":
            return f"{_shown(value)} will not do for {what}", _pattern_hint(
                path, cast("Mapping[str, object]", error.schema)
            )
        case _:
            return f"{what} is wrong: {_shown(value)}", ""


def _type_hint(value: object, types: list[str]) -> str:
    if isinstance(value, bool | int | float) and "string" in types:
        return f'quote it: "{json.dumps(value)}"'
    if value is None:
        return "nothing stands after the colon"
    if "array" in types and isinstance(value, str):
        return f"write a list: [{value}]"
    return ""


def _pattern_hint(path: tuple[Key, ...], schema: Mapping[str, object]) -> str:
    match path[-1] if path else "":
        case "id" | "fails_as":
            return "use small letters, digits and `_` (in an id also `-`), a letter first, at most 40"
        case "timeout" | "backoff" | "lost_after":
            return "write a duration such as 90s, 15m or 1h30m"
        case "memory":
            return "write a size such as 512m or 4g"
        case "max" | "max_tokens":
            return "write a whole number, or one ${{ expression }}"
        case int() if "egress" in path:
            return "write a domain such as registry.npmjs.org, *.example.org or HOST:PORT, without https:// and path"
        case int() if "allow" in path:
            return "write a method and a path below `upstream:`, such as POST /responses"
        case _:
            return str(schema.get("description", ""))


def _where(path: tuple[Key, ...]) -> str:
    """What the thing at a path is, in the user's words."""
    words = [part for part in path if isinstance(part, str)]
    if not words:
        return "the file"
    if isinstance(path[-1], int) and words[-1] in {"steps", "always", "parallel"}:
        return "a step"
    if len(path) > 1 and path[-2] in {"inputs", "secrets", "containers", "files"}:
        return f"`{path[-2]}: {path[-1]}:`"
    return f"`{words[-1]}`"


def _shown(value: object) -> str:
    if value is None:
        return "empty"
    text = json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return text if len(text) <= 60 else f"{text[:57]}..."
