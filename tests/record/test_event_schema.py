"""The published schema of events: made from their types, and true of the records of every version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from jsonschema import Draft7Validator

import pccpipe
from pccpipe.data_files import schema_text
from pccpipe.record.events import Happening
from tests.docs.event_schema import event_schema

OLD = sorted((Path(__file__).parent / "old").rglob("events.jsonl"))


@pytest.fixture(scope="module")
def validator() -> Draft7Validator:
    schema = json.loads(schema_text("event"))
    Draft7Validator.check_schema(schema)
    return Draft7Validator(schema)


def test_the_file_is_what_the_types_make() -> None:
    assert schema_text("event") == event_schema(), "run: python -m tests.docs.event_schema"
    assert len(json.loads(event_schema())["oneOf"]) == len(get_args(Happening))


@pytest.mark.parametrize("journal", OLD, ids=lambda path: path.parent.name)
def test_records_of_earlier_versions_are_valid(journal: Path, validator: Draft7Validator) -> None:
    lines = journal.read_text().splitlines()
    assert lines
    for line in lines:
        validator.validate(json.loads(line))


def test_a_run_of_today_is_valid(tmp_path: Path, validator: Draft7Validator) -> None:
    text = "version: 1\nname: x\nsteps:\n  - {id: a, on: local, run: echo a}\n  - {id: b, on: local, run: exit 3}\n"
    pccpipe.run(pccpipe.load(text), run_id="r1", runs_dir=tmp_path, workspace=tmp_path)
    for line in (tmp_path / "r1" / "events.jsonl").read_text().splitlines():
        validator.validate(json.loads(line))


def test_a_wrong_event_is_invalid(validator: Draft7Validator) -> None:
    assert not validator.is_valid({"seq": 1, "time": 1.5, "event": "run_queued"})
    assert not validator.is_valid({"seq": 1, "time": 1.5, "event": "no_such_event", "message": "x"})
    assert validator.is_valid({"seq": 1, "time": 1.5, "event": "run_queued", "message": "x", "a_later_field": 1})
