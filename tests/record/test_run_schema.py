"""The published schema of run.json: made from its types, and true of the records of every version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

import pccpipe
from pccpipe.data_files import schema_text
from pccpipe.layout import RUN_JSON
from pccpipe.record.run_file import RunFile
from pccpipe.record.state import state_of
from tests.docs.run_schema import run_schema
from tests.record.script import default_run, events

OLD = sorted((Path(__file__).parent / "old").rglob(RUN_JSON))


@pytest.fixture(scope="module")
def validator() -> Draft7Validator:
    schema = json.loads(schema_text("run"))
    Draft7Validator.check_schema(schema)
    return Draft7Validator(schema)


def strict() -> Draft7Validator:
    """Return the schema for this version's run.json: with all fields, and no others."""
    schema = json.loads(schema_text("run"))
    for defined in schema["definitions"].values():
        if defined.get("type") == "object":
            defined |= {"required": list(defined["properties"]), "additionalProperties": False}
    return Draft7Validator(schema)


def test_the_file_is_what_the_types_make() -> None:
    assert schema_text("run") == run_schema(), "run: python -m tests.docs.run_schema"


@pytest.mark.parametrize("record", OLD, ids=lambda path: f"{path.parts[-3]}-{path.parts[-2]}")
def test_run_json_of_earlier_versions_is_valid(record: Path, validator: Draft7Validator) -> None:
    validator.validate(json.loads(record.read_text()))


def test_a_run_of_today_is_valid(tmp_path: Path) -> None:
    text = "version: 1\nname: x\nsteps:\n  - {id: a, on: local, run: echo a}\n  - {id: b, on: local, run: exit 3}\n"
    pccpipe.run(pccpipe.load(text), run_id="r1", runs_dir=tmp_path, workspace=tmp_path)
    data = json.loads((tmp_path / "r1" / RUN_JSON).read_text())
    assert (list(data), data["format"]) == (list(RunFile.__struct_fields__), 1)
    strict().validate(data)


def test_a_state_with_downgrades_rounds_and_artifacts_is_valid() -> None:
    strict().validate(state_of(events(default_run())).to_json())


@pytest.mark.parametrize("wrong", [{"outcome": "fine"}, {"steps": [{"path": "a"}]}, {"last_seq": "9"}])
def test_a_wrong_run_json_is_invalid(wrong: dict[str, Any], validator: Draft7Validator) -> None:
    data = json.loads(OLD[0].read_text())
    assert validator.is_valid(data | {"a_later_field": 1})
    assert not validator.is_valid(data | wrong)
    assert not validator.is_valid({key: value for key, value in data.items() if key != "run_id"})
