"""Writes the problems of pipelines and project files, for people and for programs.

The JSON shape is documented in docs/editors.md, and stays.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from urllib.parse import quote

from pccpipe.spec.problem import Problem, Rule
from pccpipe.version import __version__
from pccpipe.views.text import harmless


class ProblemFormat(StrEnum):
    """Name the formats of `validate`."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"
    SARIF = "sarif"


def shown(problems: Sequence[Problem], how: ProblemFormat) -> str:
    """Return all problems in a format; empty if there is nothing to print."""
    return _FORMATS[how](problems)


def _text(problems: Sequence[Problem]) -> str:
    if not problems:
        return ""
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    return "\n".join([*map(str, problems), count])


def _json(problems: Sequence[Problem]) -> str:
    shown = [
        {
            "file": problem.position.file,
            "line": problem.position.line,
            "column": problem.position.column,
            "rule": problem.rule.value,
            "message": problem.message,
            "hint": problem.hint,
        }
        for problem in problems
    ]
    return json.dumps({"version": 1, "problems": shown}, indent=2)


def _github(problems: Sequence[Problem]) -> str:
    """Return workflow commands, which GitHub shows at the line in a pull request.

    https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands
    """
    return "\n".join(map(_annotation, problems))


def _annotation(problem: Problem) -> str:
    def escaped(text: str) -> str:
        return harmless(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")

    file = escaped(problem.position.file).replace(":", "%3A").replace(",", "%2C")
    place = f"file={file},line={problem.position.line},col={problem.position.column}"
    return f"::error {place},title=pccpipe::{escaped(_whole(problem))}"


def _sarif(problems: Sequence[Problem]) -> str:
    rules = [{"id": rule.value, "shortDescription": {"text": text}} for rule, text in _RULES.items()]
    run = {
        "tool": {"driver": {"name": "pccpipe", "version": __version__, "rules": rules}},
        "columnKind": "unicodeCodePoints",
        "results": list(map(_result, problems)),
    }
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    return json.dumps({"$schema": schema, "version": "2.1.0", "runs": [run]}, indent=2)


def _result(problem: Problem) -> Mapping[str, object]:
    region = {"startLine": problem.position.line, "startColumn": problem.position.column}
    return {
        "ruleId": problem.rule.value,
        "ruleIndex": list(_RULES).index(problem.rule),
        "level": "error",
        "message": {"text": _whole(problem)},
        "locations": [
            {"physicalLocation": {"artifactLocation": {"uri": _uri(problem.position.file)}, "region": region}}
        ],
    }


def _uri(file: str) -> str:
    # A path may have bytes that are not UTF-8.
    return Path(file).as_uri() if Path(file).is_absolute() else quote(os.fsencode(file))


def _whole(problem: Problem) -> str:
    return f"{problem.message}; {problem.hint}" if problem.hint else problem.message


_RULES: Mapping[Rule, str] = {
    Rule.FILE: "The file cannot be read.",
    Rule.YAML: "The file is not YAML, or it uses YAML that pccpipe does not accept.",
    Rule.STRUCTURE: "A key or a value is not allowed at this position.",
    Rule.MEANING: "A name, a reference or an expression is wrong.",
    Rule.POLICY: "The operator's policy refuses it.",
}
_FORMATS: Mapping[ProblemFormat, Callable[[Sequence[Problem]], str]] = {
    ProblemFormat.TEXT: _text,
    ProblemFormat.JSON: _json,
    ProblemFormat.GITHUB: _github,
    ProblemFormat.SARIF: _sarif,
}
