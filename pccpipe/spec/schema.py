"""Structure: what the published JSON Schemas say of a file, in the user's words.

Each error of the schema library becomes at most one problem, in words of our own: it is what editors show, with better
words.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pccpipe import limits
from pccpipe.data_files import data_path, schema_text
from pccpipe.errors import LimitExceeded
from pccpipe.spec.fits import Fits, compiled
from pccpipe.spec.paths import read_file
from pccpipe.spec.position import Position
from pccpipe.spec.problem import Problem, Rule
from pccpipe.spec.source import BadYaml, Source, read_source
from pccpipe.spec.structure import BUILT_IN_RESULTS, SPACE, problems_of
from pccpipe.values import Json

if TYPE_CHECKING:
    from jsonschema import Draft7Validator


def structure_problems(source: Source, schema: str) -> list[Problem]:
    """Everything that the schema of that name (`pipeline`, `project`) finds wrong, in order of position."""
    return [] if _fits(schema)(source.data) else problems_of(_validator(schema), source)


def schema_file_problems(path: Path) -> list[Problem]:
    """What is wrong with a result's schema in a file of its own. Raises OSError."""
    from jsonschema import Draft7Validator

    try:
        json.loads(read_file(path, limits.TEMPLATE))
        source = read_source(path)
    except LimitExceeded as error:
        return [Problem(Position(str(path), 1, 1), error.message, rule=Rule.FILE)]
    except json.JSONDecodeError as error:
        return [_not_json(path, error)]
    except UnicodeDecodeError:
        return [Problem(Position(str(path), 1, 1), "the file is not UTF-8 text", rule=Rule.YAML)]
    except RecursionError:
        return [Problem(Position(str(path), 1, 1), "this is nested too deep", rule=Rule.YAML)]
    except BadYaml as bad:
        return [Problem(bad.position, bad.message, bad.hint, bad.line, Rule.YAML)]
    return problems_of(Draft7Validator(Draft7Validator.META_SCHEMA), source)


def _not_json(path: Path, error: json.JSONDecodeError) -> Problem:
    """Say where a file is no JSON, and why."""
    offset, words = min(error.pos, len(error.doc.rstrip())), f"{error.msg[:1].lower()}{error.msg[1:]}"
    # Python 3.13 points at the comma, with words of its own; earlier ones at what comes after it.
    end = error.pos + (error.doc[error.pos : error.pos + 1] == ",")
    before, after = error.doc[:end].rstrip(SPACE), error.doc[end:].lstrip(SPACE)
    if before.endswith(",") and after.startswith(("}", "]")):
        offset, words = len(before) - 1, f"a comma right before `{after[0]}`"
    line = error.doc.count("\n", 0, offset) + 1
    at = Position(str(path), line, offset - error.doc.rfind("\n", 0, offset))
    return Problem(at, f"invalid JSON: {words}", "", error.doc.split("\n")[line - 1], Rule.YAML)


def find_schema(name: str, folder: Path) -> Mapping[str, object]:
    """A result's schema: a built-in one by its name, or a file's path relative to the pipeline.

    Raises OSError if there is no such file, ValueError if it is no JSON.
    """
    path = schema_path(name, folder)
    schema: dict[str, object] = json.loads(read_file(path, limits.TEMPLATE))
    return schema


def result_keys(steps: Iterable[Mapping[str, Json]], folder: Path) -> dict[str, tuple[str, ...]]:
    """By a step's id all the keys that its result can have, where its schema is right and allows no others."""
    found: dict[str, tuple[str, ...]] = {}
    for step in steps:
        result = step.get("result")
        name = result.get("schema") if isinstance(result, dict) else None
        try:
            schema = find_schema(name, folder) if isinstance(name, str) else {}
        except (OSError, ValueError, RecursionError):
            continue  # said at the place that names it
        keys = schema.get("properties") if isinstance(schema, dict) else None
        if isinstance(keys, dict) and schema.get("additionalProperties") is False and "patternProperties" not in schema:
            found[str(step.get("id"))] = tuple(keys)
    return found


def schema_path(name: str, folder: Path) -> Path:
    """Where the schema of a result is."""
    return data_path("schemas", f"{name}.schema.json") if name in BUILT_IN_RESULTS else folder / name


@functools.cache
def _fits(name: str) -> Fits:
    return compiled(json.loads(schema_text(name)))


@functools.cache
def _validator(name: str) -> Draft7Validator:
    from jsonschema import Draft7Validator

    return Draft7Validator(json.loads(schema_text(name), object_hook=_spelt_out))


def _spelt_out(schema: dict[str, Any]) -> dict[str, Any]:
    """`false`, by which editors mark a key that may not stand there, as what the library tells the place of, too."""
    keys: dict[str, Any] = schema.get("properties", {})
    keys.update({key: {"not": {}} for key, value in keys.items() if value is False})
    return schema
