"""python -m tests.docs.event_schema: writes schemas/event.schema.json from the types of events.

A test fails when the file is not what this makes.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any, get_args

import msgspec

from pccpipe.record.events import Happening
from pccpipe.record.run_events import FORMAT

FILE = Path(__file__).resolve().parents[2] / "schemas/event.schema.json"
Schema = dict[str, Any]
NUMBER = "The number of the event in its run, from 1; 0 for `output`, which the journal does not keep."


def event_schema() -> str:
    """Return the schema of one line of events.jsonl."""
    _, defined = msgspec.json.schema_components([Happening], ref_template="#/definitions/{name}")
    kinds = [kind.__name__ for kind in get_args(Happening)]
    stamp: Schema = {
        "seq": {"type": "integer", "minimum": 0, "description": NUMBER},
        "time": {"type": "number", "description": "Seconds since the epoch."},
    }
    for name, schema in defined.items():
        # A reader of today meets fields that a later version adds.
        schema.pop("additionalProperties", None)
        without_indent(schema)
        if name in kinds:
            schema["properties"] = {**stamp, **schema["properties"]}
            schema["required"] = ["seq", "time", *schema["required"]]
    whole = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "pccpipe event",
        "description": f"One line of events.jsonl, and of `--format jsonl`. Format {FORMAT}.",
        "oneOf": [{"$ref": f"#/definitions/{name}"} for name in kinds],
        "definitions": dict(sorted(defined.items())),
    }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def without_indent(schema: Schema) -> None:
    """Give a description the form that it has in Python 3.13, which takes the indent from docstrings."""
    if "description" in schema:
        schema["description"] = inspect.cleandoc(schema["description"])


if __name__ == "__main__":
    FILE.write_text(event_schema(), encoding="utf-8")
