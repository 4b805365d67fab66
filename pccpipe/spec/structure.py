"""Turns errors of the schema library into problems in the user's words: each cause once, with a hint."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from pccpipe import limits
from pccpipe.spec import elsewhere
from pccpipe.spec.hints import KEY_HINTS, NO_LIMIT, TYPES, pattern_hint, small_hint, type_hint, where_known
from pccpipe.spec.position import KeyPath, Position
from pccpipe.spec.problem import Problem, Rule, did_you_mean, nearest
from pccpipe.spec.ready import misplaced_background
from pccpipe.spec.source import Source
from pccpipe.values import Json

if TYPE_CHECKING:
    from jsonschema import Draft7Validator, ValidationError

BODIES = ("run", "agent", "upload", "download", "diff", "remove", "build", "repeat", "parallel", "steps")
_GROUPS = ("repeat", "parallel", "steps")
_OF_DEFAULTS = ("on", "container", "shell", "shell_options", "cwd", "env", "log_limit", "isolation", "fallback")
BUILT_IN_RESULTS = ("builder-result", "reviewer-result")
AGENT_KEYS = ("prompt", "session", "repair", "stalled_after", "on_stall", "workspace_config")
"""The keys of a step with `agent:`."""
SPACE = " \t\r\n"


def problems_of(validator: Draft7Validator, source: Source) -> list[Problem]:
    """Return the validator's errors in the user's words: each cause once, in order of position."""
    found: dict[tuple[Position, str], Problem] = {}
    for error in validator.iter_errors(source.data):
        for problem in _problems(error, source):
            # One value can break several rules: its first problem counts. Missing keys count apart.
            lacks = str(error.validator) if error.validator in {"required", "anyOf"} else ""
            found.setdefault((problem.position, lacks), problem)
            if len(found) >= limits.PIPELINE_PROBLEMS.most:
                return _not_covered(found.values())
    return _not_covered(found.values())


def _not_covered(problems: Collection[Problem]) -> list[Problem]:
    covered = frozenset[Position]().union(*(problem.covers for problem in problems))
    return sorted((each for each in problems if each.position not in covered), key=lambda each: each.position)


def _problems(error: ValidationError, source: Source) -> Iterator[Problem]:
    path = cast("KeyPath", tuple(error.absolute_path))
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
    path: KeyPath,
    message: str,
    hint: str = "",
    *,
    at_key: bool = False,
    covers: frozenset[Position] = frozenset(),
) -> Problem:
    position = source.of_key(path) if at_key else source.of_value(path)
    return Problem(position, message, hint, source.line(position.line), Rule.STRUCTURE, covers)


def _unknown_keys(error: ValidationError, path: KeyPath, source: Source) -> Iterator[Problem]:
    known = list(_known_at(error))
    patterns = [re.compile(each) for each in cast("dict[str, Any]", error.schema).get("patternProperties", ())]
    is_ours = bool(path) or "steps" in known
    for key, value in cast("dict[str, Json]", error.instance).items():
        if key not in known and not any(pattern.search(key) for pattern in patterns):
            hint = elsewhere.key_hint(_thing(path), key, value) if is_ours else ""
            hint = hint or where_known(key, path, known) or did_you_mean(key, known)
            yield _problem(source, (*path, key), f"unknown key `{key}` in {_thing(path)}", hint, at_key=True)


def _missing_keys(error: ValidationError, path: KeyPath, source: Source) -> Iterator[Problem]:
    instance = cast("dict[str, Json]", error.instance)
    known = _known_at(error)
    for key in cast("Sequence[str]", error.validator_value):
        # The problem of a misspelt key already suggests this one.
        if key not in instance and not any(nearest(name, [key]) for name in instance if name not in known):
            hint = KEY_HINTS.get((_thing(path), key), "")
            yield _problem(source, path, f"{_thing(path)} needs the key `{key}`", hint, at_key=True)
            return


def _known_at(error: ValidationError) -> Mapping[str, object]:
    return cast("Mapping[str, Mapping[str, object]]", error.schema).get("properties", {})


def _none_of(error: ValidationError, path: KeyPath, source: Source) -> Iterator[Problem]:
    instance = cast("dict[str, Json]", error.instance)
    options = cast("list[dict[str, list[str]]]", error.validator_value)
    if not all("required" in option for option in options):  # in a user's schema
        yield _problem(source, path, *_bad_value(_best_option(error), path))
        return
    wanted = [name for option in options for name in option["required"]]
    if tuple(wanted) == BODIES:
        if any(nearest(key, BODIES) for key in instance if key not in _known_at(error)):
            return  # reported at that key
        hint = f"add {_listed(BODIES)}"
        yield _problem(source, path, "this step does nothing", hint)
    elif "max_parallel" in instance:
        message = "`max_parallel` needs a `matrix:` or a `parallel:`"
        yield _problem(source, (*path, "max_parallel"), message, "it limits how many of them run at once", at_key=True)
    elif "fail_fast" in instance:
        message = "`fail_fast` needs a `matrix:` or a `parallel:`"
        yield _problem(source, (*path, "fail_fast"), message, "steps in order stop at the first failure", at_key=True)
    elif "image" in wanted:
        message = f"{_thing(path)} needs an `image:`, or `extends:` with another container's name"
        yield _problem(source, path, message, "such as `image: pcc-runner:latest`", at_key=True)
    else:
        yield _problem(source, path, f"{_thing(path)} needs one of {', '.join(f'`{name}`' for name in wanted)}")


def _best_option(error: ValidationError) -> ValidationError:
    """Return the error of the nearest alternative: one about the value rather than its type."""
    reasons = list(error.context or [error])
    return next((reason for reason in reasons if reason.validator != "type"), reasons[0])


def _misplaced(path: KeyPath, data: Json) -> tuple[str, str] | None:
    """Return words for a known key that cannot be combined with its neighbours; None if another problem says it."""
    key = str(path[-1])
    around: Any = data
    step: Any = data
    for part in path[:-1]:
        step, around = around, around[part]
    beside = cast("dict[str, Json]", around)
    bodies = sorted((name for name in beside if name in BODIES), key=lambda name: name == "steps")
    if path == ("change",):
        return "`change` needs an `include:`", "it changes steps of the included pipeline"
    if path[0] == "change" and key in {"set", "unset"}:
        return f"`{key}` cannot be combined with `remove: true`", "a removed step cannot be changed"
    if len(path) > 1 and path[-2] == "fallback":
        if "agent" in step:
            hint = "the command outside of a container comes from the agent file (`outside:`)"
            return f"the fallback of an agent takes no `{key}`", hint
        return f"the fallback of an upload takes only `on: local`, not `{key}`", ""
    if key == "exit_codes":
        body = next((name for name in BODIES if name in step), "steps")
        inside = "put it at the steps inside" if body in {"steps", "repeat", "parallel"} else "leave it out"
        return f"`exit_codes` has no effect: a step with `{body}:` has no exit code", inside
    if key in BODIES:
        if key == bodies[0]:
            return None
        return f"`{key}` cannot be combined with `{bodies[0]}`", "a step does one thing: make it two steps"
    if key == "exclude":
        hint = "write `download: {paths: [...], exclude: [...]}`" if "download" in beside else ""
        return "`exclude` belongs to an `upload:`", hint
    if words := misplaced_background(key, beside):
        return words
    if bodies and key in {"always", "defaults"}:
        return f"`{key}` cannot be combined with `{bodies[0]}`", f"it belongs to a group, with {_listed(_GROUPS)}"
    if bodies and bodies[0] in _GROUPS and key in _OF_DEFAULTS:
        return f"`{key}` cannot be combined with `{bodies[0]}`", "put it under the group's `defaults:`"
    if bodies:
        kinds = "`agent:`" if key in AGENT_KEYS else "`run:`" if "agent" in bodies else "`run:` or `agent:`"
        return f"`{key}` cannot be combined with `{bodies[0]}`", f"it belongs to a step with {kinds}"
    if key in {"api", "upstream", "allow", "models", "service_tiers", "hosted_tools"} and "from" in beside:
        return (
            f"`{key}` needs `via: proxy`",
            "without the proxy the step has the key itself, and nothing limits its calls",
        )
    if "from" in beside:
        return f"`{key}` cannot be combined with `from: {beside['from']}`", ""
    return None  # another problem says that the step does nothing


def _bad_names(error: ValidationError, path: KeyPath, source: Source) -> Iterator[Problem]:
    name = str(error.instance)
    hint = "use letters, digits and `_`; do not begin with a digit"
    if path[-1:] == ("files",):
        hint = "use a plain file name without folders: letters, digits, `.`, `_` and `-`, at most 100 characters"
    elif path[-1:] == ("containers",):
        hint = "use letters, digits, `_` and `-`, a letter first"
    kind = _NAMED.get(str(path[-1]) if path else "", "a key")
    yield _problem(source, (*path, name), f"invalid name of {kind}: `{name}`", hint, at_key=True)


_NAMED = {
    "env": "an environment variable",
    "args": "a build argument",
    "files": "a file for a command",
    "inputs": "an input",
    "secrets": "a secret",
    "containers": "a container",
    "services": "a service",
    "agents": "an agent",
    "matrix": "a matrix's value",
}


def _bad_value(error: ValidationError, path: KeyPath) -> tuple[str, str]:
    what = f"`{path[-1]}`" if path and isinstance(path[-1], str) else _thing(path)
    value: object = error.instance
    wanted: Any = error.validator_value
    match error.validator:
        case "type":
            types = wanted if isinstance(wanted, list) else [wanted]
            if value is None:
                return f"{what} has no value", type_hint(value, types, path)
            words = " or ".join(
                _EXPRESSION if kind == "string" and _is_expression(error) else TYPES[kind] for kind in types
            )
            return f"{what} must be {words}, not {_shown(value)}", type_hint(value, types, path)
        case "enum" | "const":
            known = [
                str(choice).lower() if isinstance(choice, bool) else str(choice)
                for choice in (wanted if error.validator == "enum" else [wanted])
            ]
            hint = did_you_mean(str(value), known)
            return f"invalid {what}: {_shown(value)}", f"the only one is `{known[0]}`" if len(known) == 1 else hint
        case "minimum":
            return f"{what} must be at least {wanted}, not {_shown(value)}", small_hint(path)
        case "exclusiveMinimum":
            return f"{what} must be more than {wanted}, not {_shown(value)}", NO_LIMIT if (
                path[-1:] == ("timeout",) and path[-2:-1] != ("ready",)
            ) else ""
        case "maximum":
            return f"{what} must be at most {wanted}, not {_shown(value)}", ""
        case "minItems" | "minLength" | "minProperties":
            return f"{what} is empty", ""
        case "maxProperties":
            given = ", ".join(f"`{key}`" for key in cast("dict[str, Json]", value))
            return f"{what} takes one key, not several: {given}", "keep one of them"
        case "maxItems" | "maxLength":
            much = "values" if error.validator == "maxItems" else "characters"
            return f"{what} may have at most {wanted} {much}, not {len(cast('list[Json]', value))}", ""
        case "uniqueItems":
            return f"{what} contains a duplicate", ""
        case "pattern":
            hint = pattern_hint(path, str(value), cast("Mapping[str, object]", error.schema))
            return f"invalid {what}: {_shown(value)}", hint
        case _:
            return f"invalid {what}: {_shown(value)}", ""


_EXPRESSION = "one ${{ expression }}"


def _is_expression(error: ValidationError) -> bool:
    """Say whether the only text that the schema accepts is an expression."""
    return str(cast("dict[str, object]", error.schema).get("pattern", "")).startswith(r"^\s*\$\{\{")


def _thing(path: KeyPath) -> str:
    """Name the thing at a path in the user's words."""
    words = [part for part in path if isinstance(part, str)]
    if not words:
        return "the file"
    if isinstance(path[-1], int) and words[-1] in {"steps", "always", "parallel", "before", "after"}:
        return "a step"
    if len(path) > 1 and path[-2] in {"inputs", "secrets", "containers", "agents", "files", "services"}:
        return f"`{path[-2]}: {path[-1]}:`"
    return f"`{words[-1]}`"


def _listed(words: Sequence[str]) -> str:
    return f"one of {', '.join(f'`{word}`' for word in words)}"


def _shown(value: object) -> str:
    if value is None:
        return "empty"
    text = json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return text if len(text) <= 60 else f"{text[:57]}..."
