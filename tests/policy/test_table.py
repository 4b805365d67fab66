"""docs/trust.md says what every key of a pipeline and a project file can reach, and which policy key governs it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from pccpipe.data_files import schema_text

PAGE = Path(__file__).resolve().parents[2] / "docs/trust.md"


def _rows() -> Iterator[tuple[str, str, str]]:
    """Give each key of the table with the policy keys that govern it."""
    section = PAGE.read_text(encoding="utf-8").partition("## What a policy governs")[2].partition("\n## ")[0]
    for where, keys, policy in re.findall(r"^\| (\w+) \| (`.+?) \| .*? \| (.*?) ?\|$", section, re.MULTILINE):
        for key in re.findall(r"`([^`]+)`", keys):
            yield where, key, policy


def _keys() -> Iterator[tuple[str, str]]:
    """Give each key of the schemas."""
    pipeline, project = (json.loads(schema_text(name)) for name in ("pipeline", "project"))
    sections = {
        "pipeline": pipeline,
        **{
            name: pipeline["definitions"][name]
            for name in ("input", "secret", "container", "service", "agent", "step", "change", "ready")
        },
        "project": project,
        "vm": project["properties"]["vm"],
    }
    assert pipeline["definitions"].keys() == sections.keys() - {"pipeline", "project", "vm"}
    for where, schema in sections.items():
        for key in schema["properties"]:
            yield where, key


def test_every_key_has_a_row_and_every_row_a_key() -> None:
    rows = [(where, key) for where, key, _ in _rows()]
    assert sorted(rows) == sorted(set(rows))
    assert set(rows) == set(_keys())


def test_the_table_names_keys_that_a_policy_has() -> None:
    schema = json.loads(schema_text("policy"))["properties"]
    known = {*schema, *(f"ceilings.{key}" for key in schema["ceilings"]["properties"])}
    named = {key for _, _, policy in _rows() for key in re.findall(r"`([^`]+)`", policy)}
    assert named <= known
    assert named == known - {"$schema", "version", "preset", "ceilings"}
