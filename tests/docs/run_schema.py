"""python -m tests.docs.run_schema: writes schemas/run.schema.json from the types of run.json.

A test fails when the file is not what this makes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from pccpipe.record.run_file import FORMAT, RunFile
from tests.docs.event_schema import without_indent

FILE = Path(__file__).resolve().parents[2] / "schemas/run.schema.json"


def run_schema() -> str:
    """Return the schema of run.json."""
    _, defined = msgspec.json.schema_components([RunFile], ref_template="#/definitions/{name}")
    for schema in defined.values():
        without_indent(schema)
    # Only a line of events.jsonl has the kind of its event.
    downgrade: dict[str, Any] = defined["StepDowngraded"]
    del downgrade["properties"]["event"]
    downgrade["required"].remove("event")
    whole = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "pccpipe run",
        "description": f"run.json, and the output of `pccpipe show RUN --json`. Format {FORMAT}.",
        "$ref": "#/definitions/RunFile",
        "definitions": dict(sorted(defined.items())),
    }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(run_schema(), encoding="utf-8")
