"""python -m tests.docs.reference: writes docs/reference.md from the schemas, docs/commands.md from the commands' help,
docs/limits.md from pccpipe/limits/, docs/default-run.svg from the default pipeline.

A test fails if a page differs from this output.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from pccpipe import limits
from pccpipe.cli.app import app
from pccpipe.spec.load import load_pipeline
from pccpipe.views.graph import make_graph
from pccpipe.views.svg import svg

ROOT = Path(__file__).resolve().parents[2]
DOCS, SCHEMAS = ROOT / "docs", ROOT / "schemas"
Schema = dict[str, Any]

HEAD = """# Every key

<!-- Made by tests/docs/reference.py from schemas/: change those. -->

The keys of pipelines, project files, policies, test files and agents' results. An editor that knows the schemas
shows the same.
"""
FILES = {
    "A pipeline": "pipeline.schema.json",
    "A project file": "project.schema.json",
    "A policy": "policy.schema.json",
    "A test file": "test.schema.json",
    "A price file": "prices.schema.json",
    "The builder's result": "builder-result.schema.json",
    "The reviewer's result": "reviewer-result.schema.json",
}
DEFINED = {
    "step": "A step",
    "change": "A change",
    "ready": "A check of readiness",
    "input": "An input",
    "secret": "A secret",
    "container": "A container",
    "case": "A case of a test",
    "turn": "A turn of a script",
    "action": "An answer of a script",
    "fault": "A fault of a case",
    "expect": "An expectation",
    "price": "A price",
}


def reference() -> str:
    """Return the page of all keys."""
    parts = [HEAD]
    for title, name in FILES.items():
        schema = json.loads((SCHEMAS / name).read_text(encoding="utf-8"))
        parts += _section(title, _resolved(schema, schema))
        for key, defined in schema.get("definitions", {}).items():
            parts += _section(DEFINED.get(key, f"`{key}`"), _resolved(defined, schema))
    return "\n".join(parts)


def picture() -> str:
    """Return a drawing of the default pipeline."""
    return svg(make_graph(load_pipeline(ROOT / "pipelines/default-run.yaml")))


def commands() -> str:
    """Return the page of all commands."""
    parts = [
        "# Every command\n",
        "<!-- Made by tests/docs/reference.py from the commands' own help: change that. -->\n",
    ]
    context = click.Context(app, info_name="pccpipe")
    for name in sorted(app.list_commands(context)):
        command = app.get_command(context, name)
        assert command is not None
        text = command.get_help(click.Context(command, info_name=f"pccpipe {name}", max_content_width=100))
        parts += [f"## pccpipe {name}\n", f"```text\n{text.rstrip()}\n```\n"]
    return "\n".join(parts)


def limits_page() -> str:
    """Return the page of all limits."""
    parts = [
        "# Every limit\n",
        "<!-- Made by tests/docs/reference.py from pccpipe/limits/: change that. -->\n",
        "An agent, a repository, a VM and its engine, a model's API and the author of a pipeline send data to pccpipe.",
        "No such data becomes more than this. Exceeding a limit gives one message that names it, and the `code`",
        "beside it in the record. Each is listed by who sends the data.",
    ]
    for sender, group in limits.SENT_BY.items():
        parts.append(f"\n## {sender.value}\n")
        parts.append("| what | limit | reason | where to change it | `code` |\n| --- | --- | --- | --- | --- |")
        for limit in group:
            cells = (limit.of, limit.figure, limit.why, limit.change or "fixed", f"`{limit.code.value}`")
            parts.append(f"| {' | '.join(map(_cell, cells))} |")
    return "\n".join(parts) + "\n"


def _section(title: str, schema: Schema, depth: int = 2) -> Iterator[str]:
    yield f"{'#' * depth} {title}\n"
    if schema.get("description"):
        yield f"{schema['description']}\n"
    properties: Schema = schema.get("properties", {})
    if not properties:
        return
    if title.startswith("`set:`"):
        yield f"Each key of {_kind({'$ref': 'step'})} but its `id`.\n"
        return
    yield "| key | value | default | meaning |\n| --- | --- | --- | --- |"
    required = schema.get("required", [])
    for key, of_key in properties.items():
        default = "**required**" if key in required else _code(of_key.get("default"))
        yield f"| `{key}` | {_kind(of_key)} | {default} | {_cell(of_key.get('description', ''))} |"
    yield ""
    for key, of_key in properties.items():
        inner = of_key.get("items", of_key) if of_key.get("type") == "array" else of_key
        if isinstance(inner, dict) and inner.get("properties"):
            yield from _section(f"`{key}:`{_of(title)}", inner, min(depth + 1, 5))


def _resolved(schema: Schema, root: Schema) -> Schema:
    """Return the schema with the keys that it shares with a step or a container written out."""
    made = dict(schema)
    if "properties" in schema:
        keys: Schema = schema["properties"]
        made["properties"] = {key: _resolved(_pointed(of_key, root), root) for key, of_key in keys.items()}
    return made


def _pointed(schema: Schema, root: Schema) -> Schema:
    pointer = str(schema.get("$ref", ""))
    shared = ("#/definitions/step/properties/", "#/definitions/container/properties/", "#/properties/")
    if not pointer.startswith(shared):
        return schema
    found = root
    for name in pointer.split("/")[1:]:
        found = found[name]
    return found


def _of(title: str) -> str:
    return f" of {title[0].lower()}{title[1:]}"


def _kind(schema: Schema) -> str:
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        title = DEFINED.get(name, name)
        return f"[{title.lower()}](#{title.lower().replace(' ', '-')})"
    if "const" in schema:
        return _code(schema["const"])
    if "enum" in schema:
        return " or ".join(_code(value) for value in schema["enum"])
    types = schema.get("type", [])
    if types == "array" and len(schema.get("items", {}).get("enum", [])) > 12:
        return "a list of names"
    if types == "array":
        return f"a list of {_kind(schema.get('items', {}))}"
    if types == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"by name: {_kind(schema['additionalProperties'])}"
    words = [{"object": "mapping"}.get(word, word) for word in ([types] if isinstance(types, str) else types)]
    return " or ".join(words) or "any"


def _code(value: object) -> str:
    if value is None:
        return ""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    (DOCS / "reference.md").write_text(reference(), encoding="utf-8")
    (DOCS / "commands.md").write_text(commands(), encoding="utf-8")
    (DOCS / "limits.md").write_text(limits_page(), encoding="utf-8")
    (DOCS / "default-run.svg").write_text(picture(), encoding="utf-8")
