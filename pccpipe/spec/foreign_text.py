"""Names, variables and delimiters of other tools in expressions and texts, and what to write here."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from pccpipe.spec.elsewhere import NO_CACHE, RESULT

_INPUT = "declare it under `inputs:`, and write inputs."
_NAMES: Mapping[str, str] = {
    "always": "put the step under `always:`",
    "cancelled": "under `always:` write run.outcome == 'cancelled'",
    "contains": "write 'a' in NAME",
    "endsWith": "write NAME.endswith('a')",
    "env": 'in `run:` write a variable as "$NAME"; elsewhere declare an input',
    "failure": "for one step write steps.ID.failed; under `always:` write run.outcome == 'failed'",
    "format": "write text and ${{ }} one after the other, or join with `~`: 'v' ~ inputs.NAME",
    "fromJSON": "a step's `result` is parsed JSON already",
    "github": "a run knows only its inputs: declare one under `inputs:`, and write inputs.NAME",
    "hashFiles": NO_CACHE,
    "job": "the outcome of the run is run.outcome",
    "join": "write NAME | join(',')",
    "needs": "write steps.ID.outcome, or steps.ID.result.NAME",
    "null": "write none",
    "params": "declare it under `inputs:`, and write inputs.NAME",
    "runner": "in `run:` ask the machine itself: uname",
    "startsWith": "write NAME.startswith('a')",
    "strategy": "values of the leg are matrix.NAME",
    "success": "leave it out: a step runs only if the steps before it succeeded",
    "toJSON": "write NAME | tojson",
    "vars": "declare it under `inputs:`, and write inputs.NAME",
}


def name_hint(chain: tuple[str, ...]) -> str:
    """Return what to write instead of a name of another tool's expressions; empty if it is unknown."""
    match chain:
        case ("needs", step, "result"):
            return f"write {_of_step(step)}.outcome"
        case ("needs", step, "outputs", name, *_):
            return attribute_hint(step, ("outputs", name))
        case ("github", "run_id" | "run_number", *_):
            return "write run.id"
        case ("github", "workspace", *_):
            return "leave it out: commands start in the workspace"
        case ("github", "event", "inputs", name, *_) | ("vars", name, *_):
            return f"{_INPUT}{name}"
        case ("github", "sha" | "ref" | "ref_name" | "actor" | "repository" as name, *_):
            return f"{_INPUT}{name}; `pccpipe run --input {name}=VALUE` sets it"
        case ("job", "status"):
            return "write run.outcome"
        case _:
            return _NAMES.get(chain[0], "")


def _of_step(name: str) -> str:
    return f"steps.{name}" if name.isidentifier() else f"steps[{name!r}]"


def attribute_hint(step: str, rest: tuple[str, ...]) -> str:
    """Return what to write instead of an attribute that a step has in another tool: `outputs`, `conclusion`."""
    match rest:
        case ("outputs", name, *_):
            written = '"$PCC_OUT/x.json", with `result: {path: x.json}`'
            return f"`{step}` writes JSON to {written}; then read {_of_step(step)}.result.{name}"
        case ("outputs",):
            return RESULT
        case ("conclusion" | "status", *_):
            return f"write {_of_step(step)}.outcome"
        case _:
            return ""


_OUTCOMES = {"success": "succeeded", "failure": "failed", "cancelled": "cancelled", "skipped": "skipped"}
"""The words of GitHub's `result`, and the outcomes here."""


def of_result(
    chain: tuple[str, ...], values: tuple[object, ...], without_result: Collection[str]
) -> tuple[str, str] | None:
    """Find a comparison of a step's result with an outcome of GitHub's: the message and its hint."""
    match chain:
        case ("steps", step, "result") if step in without_result:
            word = next((value for value in values if isinstance(value, str) and value in _OUTCOMES), "")
            hint = f"write {_of_step(step)}.outcome == '{_OUTCOMES.get(word, '')}'"
            return (f"`{step}` leaves no result, and none is ever `{word}`", hint) if word else None
        case _:
            return None


def of_variable(name: str) -> str:
    """Return what to write instead of a variable that another tool sets."""
    match name:
        case "GITHUB_PATH":
            return 'write `env: {PATH: "FOLDER:$PATH"}`'
        case "GITHUB_ENV":
            return 'write `echo "NAME=value" >> "$PCC_ENV"`'
        case "GITHUB_OUTPUT":
            return RESULT
        case "GITHUB_STEP_SUMMARY":
            return "print it: the record keeps the output"
        case "GITHUB_WORKSPACE" | "CI_PROJECT_DIR" | "CI_BUILDS_DIR":
            return "leave it out: commands start in the workspace"
        case "GITHUB_RUN_ID" | "GITHUB_RUN_NUMBER" | "CI_PIPELINE_ID" | "CI_PIPELINE_IID":
            return "write ${{ run.id }}"
        case "GITHUB_TOKEN" | "CI_JOB_TOKEN":
            return "declare it under `secrets:` at the top, and list it in the step's `secrets:`"
        case _:
            known = name.removeprefix("GITHUB_").removeprefix("CI_").lower()
            return f"declare an input under `inputs:`, and write ${{{{ inputs.{known} }}}}"


_VARIABLE = re.compile(r"\$(?:\{(?P<braced>(?:GITHUB|CI)_[A-Z_]{1,80})\}|(?P<plain>(?:GITHUB|CI)_[A-Z_]{1,80})\b)")
_SETS = re.compile(r"\b((?:GITHUB|CI)_[A-Z_]{1,80})\b[\"']?[ \t]*[:=]")
_QUOTED_HERE = re.compile(r"<<-?[ \t]*['\"\\]")


def foreign_variables(script: str, files: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Yield each variable of GitHub's or GitLab's machines that a script reads without a default, once.

    Args:
        files: the lines of the pipeline's files; a variable that one of them sets is the author's own.
    """
    if _QUOTED_HERE.search(script):
        return  # text for another file, in which the shell expands nothing
    names = dict.fromkeys(match["braced"] or match["plain"] for match in _VARIABLE.finditer(script))
    yield from (name for name in names if not any(name in _own_variables(lines) for lines in files))


@functools.lru_cache(16)
def _own_variables(lines: tuple[str, ...]) -> frozenset[str]:
    return frozenset(name for line in lines for name in _SETS.findall(line))


_OURS = r"(?:(?:inputs|steps|matrix|secrets)\s*[.\[]|run\.(?:id|status|outcome|folder)\b)"
_BRACES = re.compile(rf"(?<!\$)\{{\{{-?\s*(?P<inner>{_OURS}[^{{}}]{{0,200}})\}}\}}")
_BLOCK = re.compile(rf"\{{%-?\s*(?:if|elif|for|set)\b[^%]*\b{_OURS}")
_OUR_BLOCK = re.compile(rf"<%-?\s*(?:if|elif|for|set)\b[^%]*\b{_OURS}")
_NO_BLOCKS = "blocks are for template files; here write ${{ A if CONDITION else B }}"
_SECRET = 'list it in the step\'s `secrets:`, and write "$NAME" in `run:`'


def of_text(text: str, *, blocks: bool) -> Iterator[tuple[str, str, str]]:
    """Yield delimiters that would stay in the text, the first of each kind: message, hint, and their first line.

    Args:
        blocks: True in template files, where `<% %>` is a block.
    """
    if found := _BRACES.search(text):
        inner = found["inner"].rstrip(" -\t\n")
        hint = _SECRET if inner.startswith("secrets") else f"write ${{{{ {inner} }}}}"
        yield f"`{{{{ {inner} }}}}` is plain text here", hint, _first_line(found[0])
    if found := _BLOCK.search(text):
        hint = "write `<% %>` for blocks" if blocks else _NO_BLOCKS
        yield "`{% %}` is plain text here", hint, _first_line(found[0])
    if not blocks and (found := _OUR_BLOCK.search(text)):
        yield "`<% %>` is plain text here", _NO_BLOCKS, _first_line(found[0])


def _first_line(text: str) -> str:
    return text.partition("\n")[0]
