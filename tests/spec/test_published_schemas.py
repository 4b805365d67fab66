"""The published schemas explain every key, and their own proposals are valid."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft7Validator

from pccpipe.data_files import schema_text

NAMES = ("pipeline", "project", "policy", "test", "builder-result", "reviewer-result")
Schema = dict[str, Any]


def keys(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Yield each key that a file may have, with its schema."""
    for name, of_key in schema.get("properties", {}).items():
        yield f"{path}/{name}", of_key
        yield from keys(of_key, f"{path}/{name}")
    for word in ("items", "additionalProperties"):
        if isinstance(schema.get(word), dict):
            yield from keys(schema[word], f"{path}/*")
    for name, defined in schema.get("definitions", {}).items():
        yield from keys(defined, name)


@pytest.mark.parametrize("name", NAMES)
def test_every_key_explains_itself(name: str) -> None:
    for path, of_key in keys(json.loads(schema_text(name))):
        if "$ref" in of_key:
            continue  # explained at its target
        assert of_key.get("title"), path
        assert of_key.get("description", "").endswith((".", "?")), path
        # OpenAI refuses a result's schema with keywords that it does not know.
        if not name.endswith("-result"):
            assert of_key.get("examples"), path


@pytest.mark.parametrize("name", NAMES)
def test_each_proposal_of_a_schema_is_valid(name: str) -> None:
    root = json.loads(schema_text(name))
    Draft7Validator.check_schema(root)
    described = [("", root), *root.get("definitions", {}).items(), *keys(root)]
    proposed = 0
    for path, schema in described:
        validator = Draft7Validator({**schema, "definitions": root.get("definitions", {})})
        snippets = [plain(snippet["body"]) for snippet in schema.get("defaultSnippets", ())]
        defaults = [schema["default"]] if "default" in schema else []
        for value in [*schema.get("examples", ()), *defaults, *snippets]:
            proposed += 1
            problems = [error.message for error in validator.iter_errors(value)]
            assert not problems, f"{path}: {value}"
    assert proposed > 5 or name.endswith("-result")


def plain(body: Any) -> Any:
    """Return a snippet with its proposals unchanged."""
    if isinstance(body, dict):
        return {plain(key): plain(value) for key, value in body.items()}
    if isinstance(body, list):
        return [plain(item) for item in body]
    if isinstance(body, str):
        return re.sub(r"\$\{\d+[:|]([^},|]*)[^}]*\}|\$\d", r"\1", body)
    return body


@pytest.mark.parametrize("name", NAMES)
def test_equal_schemas_are_one_definition(name: str) -> None:
    places: dict[str, list[str]] = {}
    for path, of_key in keys(json.loads(schema_text(name))):
        text = json.dumps(of_key, sort_keys=True)
        if len(text) > 100 and not name.endswith("-result"):
            places.setdefault(text, []).append(path)
    assert [at for at in places.values() if len(at) > 1] == []
