"""fits.py agrees with the schema library on every keyword that our schemas use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from pccpipe.data_files import schema_text
from pccpipe.spec.fits import compiled
from pccpipe.spec.source import BadYaml, read_source
from pccpipe.values import Json

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted([*ROOT.glob("tests/corpus/*.yaml"), *ROOT.glob("pipelines/*.yaml"), *ROOT.glob("examples/**/*.yaml")])

values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from([0.0, 1.0, 1.5]) | st.text("ab1\n", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "id"]), inner, max_size=3),
    max_leaves=6,
)
SCHEMAS: list[dict[str, Json]] = [
    {"type": ["integer", "string"], "minimum": 1, "pattern": "^a*$"},
    {"type": "number", "maximum": 1, "exclusiveMinimum": 0},
    {"type": "string", "minLength": 1, "maxLength": 2},
    {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2, "uniqueItems": True},
    {"uniqueItems": True},
    {"enum": [1, "a", True, None]},
    {"const": 1},
    {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False, "required": ["a"]},
    {"properties": {"a": False}, "additionalProperties": {"type": "boolean"}, "propertyNames": {"pattern": "^[ab]$"}},
    {"minProperties": 1, "maxProperties": 2},
    {"if": {"required": ["a"]}, "then": {"required": ["b"]}, "else": {"not": {"required": ["b"]}}},
    {"anyOf": [{"required": ["a"]}, {"type": "null"}], "allOf": [{"not": {"required": ["id"]}}]},
    {"properties": {"a": {"type": "integer"}, "b": {"$ref": "#/properties/a"}}},
    {
        "definitions": {"tree": {"type": "object", "additionalProperties": {"$ref": "#/definitions/tree"}}},
        "$ref": "#/definitions/tree",
    },
]


@pytest.mark.parametrize("name", ["pipeline", "project"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_agrees_with_the_schema_library_on_every_file(path: Path, name: str) -> None:
    try:
        data = read_source(path).data
    except BadYaml:
        return
    schema = json.loads(schema_text(name))
    assert compiled(schema)(data) is Draft7Validator(schema).is_valid(data)


@pytest.mark.parametrize("schema", SCHEMAS, ids=" ".join)
@given(data=values)
def test_it_agrees_with_the_schema_library_on_every_keyword(schema: dict[str, Json], data: Json) -> None:
    fits, valid = compiled(schema)(data), Draft7Validator(schema).is_valid(data)
    # It takes `[0, false]` for a duplicate, and leaves it to the library.
    assert fits is valid or (valid and "uniqueItems" in schema)


@given(data=st.dictionaries(st.sampled_from(["run", "on", "upload", "steps", "repeat", "if", "id"]), values))
def test_it_agrees_with_the_schema_library_on_the_keys_of_a_step(data: Json) -> None:
    schema = json.loads(schema_text("pipeline"))
    pipeline: Json = {"version": 1, "name": "a", "steps": [data]}
    assert compiled(schema)(pipeline) is Draft7Validator(schema).is_valid(pipeline)


def test_an_unknown_keyword_is_an_error() -> None:
    with pytest.raises(KeyError):
        compiled({"multipleOf": 2})
