"""Errors of the YAML parser in the user's words."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from pccpipe.spec.compose import too_deep


def syntax_error(error: yaml.MarkedYAMLError, lines: Sequence[str]) -> tuple[int, int, str, str]:
    """Return the line and the column, from 1, of a syntax error, what is wrong, and a hint."""
    mark = error.problem_mark or error.context_mark
    problem, hint = error.problem or "this is no YAML", ""
    begins = error.context_mark
    rest = [lines[mark.line][mark.column :], *lines[mark.line + 1 :]] if mark and mark.line < len(lines) else []
    is_end = not "".join(rest).strip()
    if mark and _character(mark, lines) == "\t":
        problem, hint = "a tab cannot indent YAML", "use spaces"
    elif "expected a single document" in str(error):
        problem, hint = "a second document begins here", "one file holds one: leave out `---` and what follows it"
    elif "mapping values are not allowed" in problem:
        problem = "a `:` cannot stand here"
        hint = "is a text with `: ` in it to be quoted, or the line to be indented otherwise?"
    elif begins and is_end and str(error.context).endswith(("flow sequence", "flow mapping", "quoted scalar")):
        mark, problem = begins, f"this `{_character(begins, lines)}` is never closed"
    elif "nesting depth" in problem:
        problem = too_deep()
    elif begins and "flow" in str(error.context):
        problem, hint = "something else is expected here", _opened(begins, lines)
    elif "did not find expected key" in problem or "expected '-' indicator" in problem:
        problem = "this line does not belong to what is above it"
        hint = "is it indented as its neighbours are? Has a text above it a quote in its midst?"
    elif "could not find expected ':'" in problem and begins:
        mark, problem = begins, "a `key: value` is expected here"
        hint = "has the key its `: `, and is the line indented as its neighbours are?"
    elif "cannot start any token" in problem:
        problem, hint = "a text cannot begin with this character", "quote the whole text"
    elif begins and "duplicate anchor" in str(error.context):
        problem, hint = "this anchor is here twice", f"the first is on line {begins.line + 1}"
    elif "undefined alias" in problem:
        problem, hint = "there is no anchor for this alias", "a text that begins with `*` needs quotes"
    elif "escape character" in problem:
        problem, hint = "there is no such escape in double quotes", "in single quotes a `\\` is itself"
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return line, column, f"this is no valid YAML: {problem}", hint


def _opened(mark: yaml.Mark, lines: Sequence[str]) -> str:
    bracket = _character(mark, lines)
    close = {"[": "]", "{": "}"}.get(bracket, "")
    return f"the `{bracket}` on line {mark.line + 1} wants a `,` or its `{close}`" if close else ""


def _character(mark: yaml.Mark, lines: Sequence[str]) -> str:
    return lines[mark.line][mark.column : mark.column + 1] if mark.line < len(lines) else ""
