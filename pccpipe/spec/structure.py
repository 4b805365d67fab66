"""Errors of the schema library in the user's words: each cause once, with what to write instead."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from pccpipe import limits
from pccpipe.spec.position import Data, Key, Position
from pccpipe.spec.problem import Problem, Rule, did_you_mean, nearest
from pccpipe.spec.source import Source

if TYPE_CHECKING:
    from jsonschema import Draft7Validator, ValidationError
from pccpipe.data_files import schema_text

BODIES = ("run", "upload", "download", "diff", "remove", "build", "repeat", "parallel")


BUILT_IN_RESULTS = ("builder-result", "reviewer-result")


SPACE = " \t\r\n"


_TYPES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping (`key: value` lines)",
    "null": "nothing",
}


def problems_of(validator: Draft7Validator, source: Source) -> list[Problem]:
    """The validator's errors in the user's words: each cause once, in order of position."""
    found: dict[tuple[Position, str], Problem] = {}
    for error in validator.iter_errors(source.data):
        for problem in _problems(error, source):
            # One value can break several rules: the first word on it counts. What it lacks is another matter.
            lacks = str(error.validator) if error.validator in {"required", "anyOf"} else ""
            found.setdefault((problem.position, lacks), problem)
            if len(found) >= limits.PIPELINE_PROBLEMS.most:
                return _not_covered(found.values())
    return _not_covered(found.values())


def _not_covered(problems: Collection[Problem]) -> list[Problem]:
    covered = frozenset[Position]().union(*(problem.covers for problem in problems))
    return sorted((each for each in problems if each.position not in covered), key=lambda each: each.position)


def _problems(error: ValidationError, source: Source) -> Iterator[Problem]:
    path = cast("tuple[Key, ...]", tuple(error.absolute_path))
    match error.validator:
        case "additionalProperties":
            yield from _unknown_keys(error, path, source)
        case "not":
            words = _misplaced(path, source.data)
            if words:
                yield _problem(source, path, *words, at_key=True, covers=source.below(path))
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


def _problem(
    source: Source,
    path: tuple[Key, ...],
    message: str,
    hint: str = "",
    *,
    at_key: bool = False,
    covers: frozenset[Position] = frozenset(),
) -> Problem:
    position = source.of_key(path) if at_key else source.of_value(path)
    return Problem(position, message, hint, source.line(position.line), Rule.STRUCTURE, covers)


def _unknown_keys(error: ValidationError, path: tuple[Key, ...], source: Source) -> Iterator[Problem]:
    known = list(_known_at(error))
    patterns = [re.compile(each) for each in cast("dict[str, Any]", error.schema).get("patternProperties", ())]
    for key in cast("dict[str, Data]", error.instance):
        if key not in known and not any(pattern.search(key) for pattern in patterns):
            hint = _OTHER_TOOLS.get((_where(path), key), "")
            if not hint and not nearest(key, known):
                hint = _where_known(key, path, known)
            hint = hint or did_you_mean(key, known)
            yield _problem(source, (*path, key), f"`{key}` is no key of {_where(path)}", hint, at_key=True)


_OTHER_TOOLS = {
    ("a step", "uses"): "there are no actions: `upload: workspace` copies the code",
    ("a step", "needs"): "steps run in order; `parallel:` runs them side by side",
    ("a step", "depends_on"): "steps run in order; `parallel:` runs them side by side",
    ("a step", "script"): "the commands stand under `run:`",
    ("the file", "jobs"): "there are no jobs: `steps:` stands at the top",
    ("the file", "stages"): "there are no stages: `steps:` run in order",
}
"""What people write who know another tool, and what to write here, by place and key."""


def _where_known(key: str, path: tuple[Key, ...], known: Sequence[str]) -> str:
    """A hint with the place where a key belongs that is a good one elsewhere; empty if there is none."""
    definitions = json.loads(schema_text("pipeline"))
    if "isolation_mode" in known:
        return "it is a key of a pipeline, and this is a project file" if key in definitions["properties"] else ""
    places = {
        "the file itself, without indentation": definitions,
        "a step": definitions["definitions"]["step"],
        "a container, under `containers:`": definitions["definitions"]["container"],
        "a step's `result:`": definitions["definitions"]["step"]["properties"]["result"],
        "a step's `retry:`": definitions["definitions"]["step"]["properties"]["retry"],
        "a step's `repeat:`": definitions["definitions"]["step"]["properties"]["repeat"],
        "a step's `build:`": definitions["definitions"]["step"]["properties"]["build"],
    }
    if path and path[0] in {"vm", "inputs", "secrets"}:
        return ""
    return next((f"it is a key of {place}" for place, schema in places.items() if key in schema["properties"]), "")


def _missing_keys(error: ValidationError, path: tuple[Key, ...], source: Source) -> Iterator[Problem]:
    instance = cast("dict[str, Data]", error.instance)
    known = _known_at(error)
    for key in cast("Sequence[str]", error.validator_value):
        # A misspelt key is a problem of its own, and names this one.
        if key not in instance and not any(nearest(name, [key]) for name in instance if name not in known):
            hint = _KEY_HINTS.get((_where(path), key), "")
            yield _problem(source, path, f"{_where(path)} needs the key `{key}`", hint, at_key=True)
            return


_KEY_HINTS = {
    ("the file", "version"): "write `version: 1` on its first line",
    ("the file", "name"): "such as `name: my-pipeline`",
    ("the file", "steps"): "a pipeline is a list of steps: `steps:`, and under it `- id: test` with `run: npm test`",
    ("the file", "id"): "such as `id: my-project`",
    ("the file", "vm"): "`isolation_mode: vm` needs to know how the VM is reached",
    ("a step", "id"): "the name by which expressions and logs know it, such as `id: test`",
    ("a step", "steps"): "what is to be repeated stands under `steps:`, beside `repeat:`",
    ("`repeat`", "max"): "how often at most, such as `max: 10`",
    ("`fallback`", "on"): "where to run instead, such as `on: local`",
    ("`result`", "path"): "where it comes home to, such as `path: builder/result.json`",
    ("`build`", "image"): "the tag of what is built, such as `image: my-image:latest`",
    ("`build`", "context"): "the folder with the Dockerfile, such as `context: docker`",
    ("`vm`", "external_ip"): "its address or name",
}


def _known_at(error: ValidationError) -> Mapping[str, object]:
    return cast("Mapping[str, Mapping[str, object]]", error.schema).get("properties", {})


def _none_of(error: ValidationError, path: tuple[Key, ...], source: Source) -> Iterator[Problem]:
    instance = cast("dict[str, Data]", error.instance)
    options = cast("list[dict[str, list[str]]]", error.validator_value)
    if not all("required" in option for option in options):  # in a schema of the user's
        yield _problem(source, path, *_bad_value(_best_option(error), path))
        return
    wanted = [name for option in options for name in option["required"]]
    if tuple(wanted) == BODIES:
        if "steps" in instance or any(nearest(key, BODIES) for key in instance if key not in _known_at(error)):
            return  # told at that key
        hint = f"it needs one of {', '.join(f'`{name}`' for name in BODIES)}"
        yield _problem(source, path, "this step does nothing", hint)
    elif "max_parallel" in instance:
        message = "`max_parallel` needs a `matrix:` or a `parallel:` beside it"
        yield _problem(source, (*path, "max_parallel"), message, "it bounds how many of them run at once", at_key=True)
    elif "image" in wanted:
        message = f"{_where(path)} needs an `image:`, or `extends:` with another container's name"
        yield _problem(source, path, message, "such as `image: pcc-runner:latest`", at_key=True)
    else:
        yield _problem(source, path, f"{_where(path)} needs one of {', '.join(f'`{name}`' for name in wanted)}")


def _best_option(error: ValidationError) -> ValidationError:
    """The reason of the alternative that comes nearest: one about the value rather than its type."""
    reasons = list(error.context or [error])
    return next((reason for reason in reasons if reason.validator != "type"), reasons[0])


def _misplaced(path: tuple[Key, ...], data: Data) -> tuple[str, str] | None:
    """The words for a key that is known, but not beside the others that stand there; None if those are to blame."""
    key = str(path[-1])
    around: Any = data
    for part in path[:-1]:
        around = around[part]
    beside = cast("dict[str, Data]", around)
    bodies = [name for name in beside if name in BODIES]
    if path == ("change",):
        return "`change` needs an `include:` beside it", "it changes the steps of the pipeline that is included"
    if path[0] == "change" and key in {"set", "unset"}:
        return f"`{key}` cannot stand beside `remove: true`", "what is taken out has nothing to change"
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
    if key in {"upstream", "allow", "models", "service_tiers", "hosted_tools"} and "from" in beside:
        return (
            f"`{key}` needs `via: proxy` beside it",
            "without it the step gets the value itself, and calls whom it likes",
        )
    if "from" in beside:
        return f"`{key}` cannot stand beside `from: {beside['from']}`", ""
    return None  # the step lacks what it does, and is told so


def _bad_names(error: ValidationError, path: tuple[Key, ...], source: Source) -> Iterator[Problem]:
    name = str(error.instance)
    hint = "use letters, digits and `_`, not a digit first"
    if path[-1:] == ("files",):
        hint = "a plain file name: letters, digits, `.`, `_` and `-`, at most 100, no folders"
    elif path[-1:] == ("containers",):
        hint = "use letters, digits, `_` and `-`, a letter first"
    kind = _NAMED.get(str(path[-1]) if path else "", "one here")
    yield _problem(source, (*path, name), f"`{name}` cannot be the name of {kind}", hint, at_key=True)


_NAMED = {
    "env": "an environment variable",
    "args": "a build argument",
    "files": "a file for a command",
    "inputs": "an input",
    "secrets": "a secret",
    "containers": "a container",
    "matrix": "a matrix's value",
}


def _bad_value(error: ValidationError, path: tuple[Key, ...]) -> tuple[str, str]:
    what = f"`{path[-1]}`" if path and isinstance(path[-1], str) else _where(path)
    value: object = error.instance
    wanted: Any = error.validator_value
    match error.validator:
        case "type":
            types = wanted if isinstance(wanted, list) else [wanted]
            if value is None:
                return f"{what} has no value", _type_hint(value, types, path)
            words = " or ".join(_TYPES[kind] for kind in types)
            return f"{what} must be {words}, not {_shown(value)}", _type_hint(value, types, path)
        case "enum" | "const":
            known = [str(choice) for choice in (wanted if error.validator == "enum" else [wanted])]
            hint = did_you_mean(str(value), known)
            return f"{_shown(value)} is no value of {what}", f"it can only be `{known[0]}`" if len(known) == 1 else hint
        case "minimum":
            return f"{what} must be at least {wanted}, not {_shown(value)}", _small_hint(path)
        case "exclusiveMinimum":
            return f"{what} must be more than {wanted}, not {_shown(value)}", _NO_LIMIT if path[-1:] == (
                "timeout",
            ) else ""
        case "maximum":
            return f"{what} must be at most {wanted}, not {_shown(value)}", ""
        case "minItems" | "minLength" | "minProperties":
            return f"{what} is empty", ""
        case "maxProperties":
            given = ", ".join(f"`{key}`" for key in cast("dict[str, Data]", value))
            return f"{what} takes one of its keys, not several: {given}", "leave out all but one"
        case "maxItems" | "maxLength":
            much = "values" if error.validator == "maxItems" else "characters"
            return f"{what} may have at most {wanted} {much}, not {len(cast('list[Data]', value))}", ""
        case "uniqueItems":
            return f"{what} has something in it twice", ""
        case "pattern":
            hint = _pattern_hint(path, str(value), cast("Mapping[str, object]", error.schema))
            return f"{_shown(value)} will not do for {what}", hint
        case _:
            return f"{what} is wrong: {_shown(value)}", ""


def _small_hint(path: tuple[Key, ...]) -> str:
    return "a plain number is bytes: write 512m or 4g" if path[-1:] == ("memory",) else ""


def _type_hint(value: object, types: list[str], path: tuple[Key, ...]) -> str:
    match path[-1:]:
        case ("run",) if isinstance(value, list):
            return "write it as one line, as you would type it in a shell"
        case ("steps" | "always" | "parallel",) if isinstance(value, dict):
            return "each step is an item of it: `- id: NAME`"
        case (int(),) if path[-2:-1] in {("steps",), ("always",), ("parallel",)}:
            return f"write `- id: NAME`{f', and under it `run: {value}`' if isinstance(value, str) else ''}"
        case ("fallback",) if isinstance(value, str):
            return f"write {{on: {value}}}"
        case ("retry",) if isinstance(value, int):
            return f"write {{attempts: {3 if value is True else value}}}"
    if path[-1:] == ("env",) and isinstance(value, list):
        return "write {NAME: value}"
    if isinstance(value, str) and {"integer", "number"} & set(types) and value.isdigit():
        return f"leave out the quotes: {value}"
    if isinstance(value, str) and types == ["boolean"]:
        words = {"yes": "true", "on": "true", "true": "true", "no": "false", "off": "false", "false": "false"}
        return f"write {words[value.lower()]}" if value.lower() in words else ""
    if isinstance(value, bool | int | float) and "string" in types:
        return f'quote it: "{json.dumps(value)}"'
    if value is None:
        return f"it must be {' or '.join(_TYPES[kind] for kind in types)}"
    if "array" in types and isinstance(value, str):
        return f"write a list: [{value}]"
    return ""


_NO_LIMIT = "there is always a limit: without `timeout:` it is 6 h for a step, and 5 min under `always:`"


def _pattern_hint(path: tuple[Key, ...], value: str, schema: Mapping[str, object]) -> str:
    match path[-1] if path else "":
        case "id" if len(path) == 1:
            return "use letters, digits, `.`, `_` and `-`, at most 100"
        case "user" | "external_ip":
            return "no login and no host begins with `-`: ssh would take it for an option"
        case "run_as":
            return "write the name of an account: small letters, digits, `_` and `-`, such as `pccrun`"
        case "root" | "engine_socket":
            return "write the whole path, such as /home/project"
        case "id" | "fails_as":
            return "use small letters, digits and `_` (in an id also `-`), a letter first, at most 40"
        case "timeout" if "0" in value and not re.search("[1-9]", value):
            return _NO_LIMIT
        case "timeout" | "backoff" | "lost_after":
            return "write a duration such as 90s, 15m or 1h30m"
        case "memory" | "log_limit" | "log_quota":
            return "write a size such as 512m or 4g"
        case "max" | "max_tokens":
            return "write a whole number, or one ${{ expression }}"
        case "tokens":
            return "write a number of tokens such as 500k or 2M, or one ${{ expression }}"
        case int() if "egress" in path:
            return "write a domain such as registry.npmjs.org, *.example.org or HOST:PORT, without https:// and path"
        case int() if "shared_home" in path:
            return "write the whole path on the VM, such as /opt/node"
        case int() if "allow" in path:
            return "write a method and a path below `upstream:`, such as POST /responses"
        case _:
            return str(schema.get("description", ""))


def _where(path: tuple[Key, ...]) -> str:
    """What the thing at a path is, in the user's words."""
    words = [part for part in path if isinstance(part, str)]
    if not words:
        return "the file"
    if isinstance(path[-1], int) and words[-1] in {"steps", "always", "parallel", "before", "after"}:
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
