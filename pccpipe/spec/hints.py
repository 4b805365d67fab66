"""Hints for keys and values that are wrong: what to write instead."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from pccpipe.data_files import schema_text
from pccpipe.spec.elsewhere import value_hint
from pccpipe.spec.position import KeyPath

TYPES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping (`key: value` lines)",
    "null": "nothing",
}
"""JSON's types in words."""

_OTHER_FILES = {"isolation_mode": "a project file", "in_container": "an agent file", "cases": "a test file"}
"""The kinds of files beside pipelines, by a key at the top."""
_OF_TESTS = "it belongs in a test file, for `pccpipe test`"
_OF_AGENTS = "it belongs in an agent file, which `use:` under `agents:` names"
_OF_OTHER_FILES = {
    "cases": _OF_TESTS,
    "script": _OF_TESTS,
    "pipeline": _OF_TESTS,
    "program": _OF_AGENTS,
    "in_container": _OF_AGENTS,
    "outside": _OF_AGENTS,
    "events": _OF_AGENTS,
}
"""Hints for keys at the top of a pipeline."""


def where_known(key: str, path: KeyPath, known: Sequence[str]) -> str:
    """Return a hint with the place where the key is valid; empty if there is none."""
    definitions = json.loads(schema_text("pipeline"))
    for mark, file in _OTHER_FILES.items():
        if mark in known:
            return f"it belongs in a pipeline, and this is {file}" if key in definitions["properties"] else ""
    places = {
        "the file itself, without indentation": definitions,
        "a step": definitions["definitions"]["step"],
        "a container, under `containers:`": definitions["definitions"]["container"],
        "an agent, under `agents:`": definitions["definitions"]["agent"],
        "a step's `result:`": definitions["definitions"]["step"]["properties"]["result"],
        "a step's `retry:`": definitions["definitions"]["step"]["properties"]["retry"],
        "a step's `repeat:`": definitions["definitions"]["step"]["properties"]["repeat"],
        "a step's `build:`": definitions["definitions"]["step"]["properties"]["build"],
    }
    if path and path[0] in {"vm", "inputs", "secrets"}:
        return ""
    if hint := next((f"it belongs to {place}" for place, schema in places.items() if key in schema["properties"]), ""):
        return hint
    return _OF_OTHER_FILES.get(key, "") if not path else ""


KEY_HINTS = {
    ("the file", "version"): "write `version: 1` on the first line",
    ("the file", "name"): "such as `name: my-pipeline`",
    ("the file", "steps"): "write `steps:`, and under it `- id: test` with `run: npm test`",
    ("the file", "id"): "such as `id: my-project`",
    ("the file", "vm"): "with `isolation_mode: vm` it says how to reach the VM",
    ("a step", "id"): "expressions and logs name the step by it, such as `id: test`",
    ("a step", "steps"): "put the steps to repeat under `steps:`, next to `repeat:`",
    ("`repeat`", "max"): "the most rounds, such as `max: 10`",
    ("`fallback`", "on"): "the place to run instead, such as `on: local`",
    ("`download`", "paths"): "the files and folders, such as `paths: [dist/]`",
    ("`result`", "path"): "the result's file in the run's folder, such as `path: builder/result.json`",
    ("`build`", "image"): "the tag of the image, such as `image: my-image:latest`",
    ("`build`", "context"): "the folder with the Dockerfile, such as `context: docker`",
    ("`vm`", "external_ip"): "the VM's address or name",
}


def small_hint(path: KeyPath) -> str:
    if "exit_codes" in path:
        return "0 is success: a step fails with 1 to 255"
    return "a plain number means bytes: write 512m or 4g" if path[-1:] == ("memory",) else ""


def type_hint(value: object, types: list[str], path: KeyPath) -> str:
    if hint := value_hint(path, value):
        return hint
    match path[-1:]:
        case ("steps" | "always" | "parallel",) if isinstance(value, dict):
            return "write each step as an item: `- id: NAME`"
        case (int(),) if path[-2:-1] in {("steps",), ("always",), ("parallel",)}:
            return f"write `- id: NAME`{f', and under it `run: {value}`' if isinstance(value, str) else ''}"
        case ("fallback",) if isinstance(value, str):
            return f"write {{on: {value}}}"
        case ("retry",) if isinstance(value, int):
            return f"write {{attempts: {3 if value is True else value}}}, which counts the first one too"
    if path[-1:] == ("env",) and isinstance(value, list):
        return "write {NAME: value}"
    if isinstance(value, str) and {"integer", "number"} & set(types) and value.isdigit():
        return f"leave out the quotes: {value}"
    if isinstance(value, str) and "boolean" in types:
        words = {"yes": "true", "on": "true", "true": "true", "no": "false", "off": "false", "false": "false"}
        return f"write {words[value.lower()]}" if value.lower() in words else ""
    if "array" in types and not isinstance(value, dict | list | None):
        return f"write a list: [{value}]"
    if isinstance(value, bool | int | float) and "string" in types:
        return f'quote it: "{json.dumps(value)}"'
    if value is None:
        return f"it must be {' or '.join(TYPES[kind] for kind in types)}"
    return ""


NO_LIMIT = "a limit always applies: without `timeout:`, 6 h for a step and 5 min under `always:`"


def pattern_hint(path: KeyPath, value: str, schema: Mapping[str, object]) -> str:
    match path[-1] if path else "":
        case "id" if len(path) == 1:
            return "use letters, digits, `.`, `_` and `-`, at most 100 characters"
        case "user" | "external_ip":
            return "a login or host cannot begin with `-`: ssh would read it as an option"
        case "run_as":
            return "write the name of an account: lowercase letters, digits, `_` and `-`, such as `pccrun`"
        case "root" | "engine_socket":
            return "write an absolute path, such as /home/project"
        case "id" | "fails_as":
            return "use lowercase letters, digits and `_` (in an id also `-`), a letter first, at most 40 characters"
        case "timeout" if "0" in value and not re.search("[1-9]", value):
            return NO_LIMIT
        case "timeout" | "every" | "backoff" | "max_backoff" | "lost_after":
            return "write a duration such as 90s, 15m or 1h30m"
        case "shell" if "{" in value:
            return "leave out the braces: the script's file comes last by itself, as in `shell: python3 -u`"
        case "shell":
            return "write a program with its options, such as `python3 -u`"
        case "upload":
            return "the only one is `workspace`; `{workspace: true, git: base}` adds a git repository"
        case "memory" | "log_limit" | "log_quota":
            return "write a size such as 512m or 4g"
        case "max" | "max_tokens":
            return "write a whole number, or one ${{ expression }}"
        case "tokens":
            return "write a number of tokens such as 500k or 2M, or one ${{ expression }}"
        case int() if "egress" in path:
            return "write a domain such as registry.npmjs.org, *.example.org or HOST:PORT, without https:// or a path"
        case int() if "shared_home" in path:
            return "write an absolute path on the VM, such as /opt/node"
        case int() if "allow" in path:
            return "write a method and a path below `upstream:`, such as POST /responses"
        case str() if "matrix" in path:
            return "write one ${{ expression }}, which gives a list" if "${{" in value else f"write a list: [{value}]"
        case _:
            return str(schema.get("description", ""))
