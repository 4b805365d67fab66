"""Checks a file's structure against the published JSON Schemas.

Each error of the schema library becomes at most one problem. Editors show the same errors, in the library's words.
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
from pccpipe.spec.elsewhere import PAGE, foreign_file
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
    """Return the problems by the schema of that name (`pipeline`, `project`), in order of position."""
    if schema == "pipeline" and (foreign := foreign_problem(source)):
        return [foreign]
    return [] if _fits(schema)(source.data) else problems_of(_validator(schema), source)


def foreign_problem(source: Source) -> Problem | None:
    """Return the one problem of a file that is for another tool: pccpipe judges none of its keys."""
    found = foreign_file(source.data)
    if found is None:
        return None
    path, what = found
    position = source.of_key(path)
    message, hint = f"this looks like {what}, not like a pipeline", f"{PAGE} has both side by side"
    return Problem(position, message, hint, source.line(position.line), Rule.STRUCTURE, source.below(()))


def schema_file_problems(path: Path) -> list[Problem]:
    """Return the problems of a file with a result's schema. Raises OSError."""
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
    """Return the problem that makes a file invalid JSON."""
    offset, words = min(error.pos, len(error.doc.rstrip())), f"{error.msg[:1].lower()}{error.msg[1:]}"
    # Python 3.13 points at the comma, with its own message; earlier versions point after it.
    end = error.pos + (error.doc[error.pos : error.pos + 1] == ",")
    before, after = error.doc[:end].rstrip(SPACE), error.doc[end:].lstrip(SPACE)
    if before.endswith(",") and after.startswith(("}", "]")):
        offset, words = len(before) - 1, f"a comma right before `{after[0]}`"
    line = error.doc.count("\n", 0, offset) + 1
    at = Position(str(path), line, offset - error.doc.rfind("\n", 0, offset))
    return Problem(at, f"invalid JSON: {words}", "", error.doc.split("\n")[line - 1], Rule.YAML)


def find_schema(name: str, folder: Path) -> Mapping[str, object]:
    """Read a result's schema: a built-in one by its name, or a file by its path relative to the pipeline.

    Raises OSError if there is no such file, ValueError if it is not JSON.
    """
    path = schema_path(name, folder)
    schema: dict[str, object] = json.loads(read_file(path, limits.TEMPLATE))
    return schema


def result_keys(steps: Iterable[Mapping[str, Json]], folder: Path) -> dict[str, tuple[str, ...]]:
    """Return all possible keys of a step's result, by the step's id, if its valid schema allows no others."""
    found: dict[str, tuple[str, ...]] = {}
    for step in steps:
        result = step.get("result")
        name = result.get("schema") if isinstance(result, dict) else None
        try:
            schema = find_schema(name, folder) if isinstance(name, str) else {}
        except (OSError, ValueError, RecursionError):
            continue  # reported at the step's `schema:`
        keys = schema.get("properties") if isinstance(schema, dict) else None
        if isinstance(keys, dict) and schema.get("additionalProperties") is False and "patternProperties" not in schema:
            found[str(step.get("id"))] = tuple(keys)
    return found


def schema_path(name: str, folder: Path) -> Path:
    """Return the path of a result's schema."""
    return data_path("schemas", f"{name}.schema.json") if name in BUILT_IN_RESULTS else folder / name


@functools.cache
def _fits(name: str) -> Fits:
    return compiled(json.loads(schema_text(name)))


@functools.cache
def _validator(name: str) -> Draft7Validator:
    from jsonschema import Draft7Validator

    return Draft7Validator(json.loads(schema_text(name), object_hook=_spelt_out))


def _spelt_out(schema: dict[str, Any]) -> dict[str, Any]:
    """Replace `false`, which forbids a key in editors, by a schema whose error has the key's position."""
    keys: dict[str, Any] = schema.get("properties", {})
    keys.update({key: {"not": {}} for key, value in keys.items() if value is False})
    return schema
