"""Puts the YAML parser's errors into the user's words."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from pccpipe.spec.compose import too_deep


def syntax_error(error: yaml.MarkedYAMLError, lines: Sequence[str]) -> tuple[int, int, str, str]:
    """Return the line and the column, from 1, of a syntax error, what is wrong, and a hint."""
    mark = error.problem_mark or error.context_mark
    problem, hint = error.problem or "the parser gives no reason", ""
    begins = error.context_mark
    rest = [lines[mark.line][mark.column :], *lines[mark.line + 1 :]] if mark and mark.line < len(lines) else []
    is_end = not "".join(rest).strip()
    if mark and _character(mark, lines) == "\t":
        problem, hint = "a tab cannot indent a line", "use spaces"
    elif "expected a single document" in str(error):
        problem, hint = "a second document begins here", "a file holds one document: remove `---` and all after it"
    elif "mapping values are not allowed" in problem:
        problem = "unexpected `:`"
        hint = "quote a text that contains `: `, or correct the indentation"
    elif begins and is_end and str(error.context).endswith(("flow sequence", "flow mapping", "quoted scalar")):
        mark, problem = begins, f"this `{_character(begins, lines)}` is never closed"
    elif "nesting depth" in problem:
        problem = too_deep()
    elif begins and "flow" in str(error.context):
        problem, hint = "unexpected text", _opened(begins, lines)
    elif "did not find expected key" in problem or "expected '-' indicator" in problem:
        problem = "this line does not fit the lines above it"
        hint = "check its indentation, and the quotes in the lines above it"
    elif "could not find expected ':'" in problem and begins:
        mark, problem = begins, "expected `key: value`"
        hint = "check the `: ` behind the key, and the indentation"
    elif "cannot start any token" in problem:
        problem, hint = "a text cannot begin with this character", "quote the whole text"
    elif begins and "duplicate anchor" in str(error.context):
        problem, hint = "duplicate anchor", f"the first is on line {begins.line + 1}"
    elif "undefined alias" in problem:
        problem, hint = "there is no anchor for this alias", "a text that begins with `*` needs quotes"
    elif "escape character" in problem:
        problem, hint = "unknown escape in double quotes", "in single quotes a `\\` is a plain character"
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return line, column, f"invalid YAML: {problem}", hint


def _opened(mark: yaml.Mark, lines: Sequence[str]) -> str:
    bracket = _character(mark, lines)
    close = {"[": "]", "{": "}"}.get(bracket, "")
    return f"the `{bracket}` on line {mark.line + 1} needs a `,` or its `{close}`" if close else ""


def _character(mark: yaml.Mark, lines: Sequence[str]) -> str:
    return lines[mark.line][mark.column : mark.column + 1] if mark.line < len(lines) else ""
