"""Words of other tools, and what to write here: GitHub Actions, GitLab CI and Dagu.

One table a place: keys of a step, keys of the file, names in expressions, variables of scripts. docs/coming-from.md
has the same side by side.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from pccpipe.spec.position import KeyPath

PAGE = "docs/coming-from.md"

_IN_ORDER = "steps run in order; inside `parallel:` a step can name others in `needs:`"
_NO_CACHE = "there are no caches: a VM, and an image, keep what is installed on them"
_NO_TRIGGERS = "there are no triggers: a run begins with `pccpipe run`"
_ON_FAILURE = "put a step with `if: run.outcome == 'failed'` under `always:`"
_HANDLERS = "put steps under `always:`; those for failures with `if: run.outcome == 'failed'`"
_RESULT = 'write JSON to "$PCC_OUT/x.json", add `result: {path: x.json}`, and read steps.ID.result.NAME'
_CWD = "write `cwd: FOLDER`"


def _seconds(value: object) -> str:
    return f"write `timeout: {value}s`" if isinstance(value, int) else "write `timeout: 90s`"


def _minutes(value: object) -> str:
    return f"write `timeout: {value}m`" if isinstance(value, int) else "write `timeout: 15m`"


def _when(value: object) -> str:
    match value:
        case "always":
            return "put the step under `always:`"
        case "on_failure":
            return _ON_FAILURE
        case "on_success":
            return "leave it out: a step runs only if the steps before it succeeded"
        case "manual":
            return "declare an input of type boolean, and write `if: inputs.NAME`"
        case _:
            return "write a condition as `if: EXPRESSION`"


def _retries(value: object) -> str:
    count = value + 1 if isinstance(value, int) else 3
    return f"write `attempts: {count}`, which counts the first one too"


_ON_ERROR = "write `continue_on_error: true`, or {exit_codes: [1]} for some exit codes"
_RUNS_ON = "write `on: vm`, `on: local`, or `on: container` with a `container:`"


Hint = str | Callable[[object], str]
"""A hint, or a function that makes it from the key's value."""

_EVERYWHERE: Mapping[str, Hint] = {
    "after_script": "put steps under `always:`",
    "artifacts": "a step of its own brings files back: `download: {paths: [dist]}`",
    "before_script": "put the commands first in `run:`, or into a step of their own",
    "cache": _NO_CACHE,
    "concurrency": "one run at a time has a VM; `pccpipe run --wait 10m` waits for it",
    "handlerOn": _HANDLERS,
    "handler_on": _HANDLERS,
    "permissions": "a step has only the secrets that it names in `secrets:`",
    "preconditions": "write a condition as `if: EXPRESSION`",
    "rules": "write a condition as `if: EXPRESSION`, such as `if: inputs.deploy`",
    "strategy": "write `matrix:` in the step itself, next to `run:`",
    "timeout_sec": _seconds,
    "timeoutSec": _seconds,
    "variables": "write `env: {NAME: value}`",
    "working_dir": _CWD,
    "workingDir": _CWD,
}
_STEP: Mapping[str, Hint] = {
    **_EVERYWHERE,
    "allow_failure": _ON_ERROR,
    "continue-on-error": _ON_ERROR,
    "action": "there are no packaged actions: write the command in `run:`",
    "approval": "declare an input of type boolean, and write `if: inputs.NAME`",
    "call": "`include:` at the top makes a pipeline from another one",
    "dependencies": "the workspace has the files of earlier steps already",
    "depends": _IN_ORDER,
    "depends_on": _IN_ORDER,
    "environment": lambda value: (
        "write `env: {NAME: value}`"
        if isinstance(value, dict)
        else "name the secrets that the step needs in its `secrets:`"
    ),
    "except": "write a condition as `if: not EXPRESSION`",
    "executor": _RUNS_ON,
    "extends": "keys for all steps belong under `defaults:`; `<<: *ANCHOR` merges others",
    "image": lambda value: (
        f"{image_hint(value) or 'declare a container'}, and write `container: {_name_of(value)}` here"
        if isinstance(value, str)
        else "declare a container under `containers:`, and name it in `container:`"
    ),
    "interruptible": "`pccpipe cancel` ends any run",
    "needs": _IN_ORDER,
    "only": "write a condition as `if: EXPRESSION`, such as `if: inputs.deploy`",
    "outputs": _RESULT,
    "params": "declare `inputs:` at the top, and write ${{ inputs.NAME }}",
    "runs-on": _RUNS_ON,
    "script": "put the commands under `run:`",
    "stage": _IN_ORDER,
    "tags": _RUNS_ON,
    "timeout-minutes": _minutes,
    "trigger": "`include:` at the top makes a pipeline from another one",
    "uses": "there are no actions: `upload: workspace` copies the code",
    "when": _when,
    "with": "there are no actions with parameters: write a command in `run:`, values in `env:`",
    "working-directory": _CWD,
}
_FILE: Mapping[str, Hint] = {
    **_EVERYWHERE,
    "image": "declare it: `containers: {box: {image: IMAGE}}`, and in steps `container: box`",
    "jobs": "there are no jobs: put `steps:` at the top level",
    "on": _NO_TRIGGERS,
    "params": "declare `inputs:`, and write ${{ inputs.NAME }}",
    "run-name": "write `--run-id NAME` after `pccpipe run`",
    "schedule": _NO_TRIGGERS,
    "services": "put them into a step or a group of steps: `services: {db: {image: IMAGE}}`",
    "stages": "there are no stages: `steps:` run in order",
    "workflow": _NO_TRIGGERS,
}
_PROMPT: Mapping[str, Hint] = {
    "file": "write the path of the file itself: `prompt: prompts/builder.md`",
    "template": "write the path of the file itself: `prompt: prompts/builder.md`",
}
_SERVICE: Mapping[str, Hint] = {
    "alias": "the service's key is its name: `services: {db: {image: IMAGE}}`",
    "entrypoint": "`command:` gives the image's entrypoint its arguments",
    "healthcheck": "write `ready: {run: COMMAND}`; without it the image's own health check counts",
    "name": "write `image: IMAGE`; the service's key is its name",
    "options": "write `ready: {run: COMMAND}` for a health check; `memory:` and `shm_size:` are keys",
    "variables": "write `env: {NAME: value}`",
    "volumes": "a service has no folders of the workspace; its data ends with it",
}
_RETRY: Mapping[str, Hint] = {
    "exit_code": "write `exit_codes:`",
    "interval_sec": "write `backoff: 5s`, which doubles up to `max_backoff`",
    "limit": _retries,
    "max": _retries,
    "max_attempts": "write `attempts:`",
    "when": "write `on: [failed, timed_out]`, or `exit_codes: [75]`",
}
_PLACES: Mapping[str, Mapping[str, Hint]] = {"a step": _STEP, "the file": _FILE, "`prompt`": _PROMPT, "`retry`": _RETRY}
"""Hints for keys of other tools, by place and key."""


def key_hint(place: str, key: str, value: object) -> str:
    """Return what to write instead of a key that other tools have at this place; empty if it is unknown."""
    keys = _SERVICE if place.startswith("`services: ") else _PLACES.get(place, {})
    hint = keys.get(key, "")
    return hint if isinstance(hint, str) else hint(value)


def value_hint(path: KeyPath, value: object) -> str:
    """Return what to write instead of a value that has the shape of another tool; empty if it is unknown."""
    match path[-2:], value:
        case (_, "run"), list():
            return "write `run: |`, and below it one command a line"
        case (_, "services"), [str(image), *_]:
            return f"write {{{_name_of(image)}: {{image: {_short(image)}}}}}"
        case ("services", _), str(image):
            return f"write {{image: {_short(image)}}}"
        case ("ports", int()), str(ports) if ":" in ports:
            return f"write the service's own port: {ports.rpartition(':')[2]}; pccpipe chooses one for this machine"
        case (_, "parallel"), {"matrix": _}:
            return "write `matrix:` in the step itself, next to `run:`"
        case (_, "parallel"), int():
            return "`parallel:` is a list of steps; a `matrix:` runs one step several times"
        case (_, "matrix"), list():
            return "write {NAME: [VALUE, VALUE]}"
        case (_, "ready"), str(command):
            return f"write {{run: {_short(command)}}}"
        case _:
            return ""


def image_hint(name: str) -> str:
    """Return how to declare an image that stands where the name of a container belongs; empty for other names."""
    return (
        f"declare it: `containers: {{{_name_of(name)}: {{image: {_short(name)}}}}}`" if re.search("[:/]", name) else ""
    )


def _name_of(image: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "_", re.split("[:@]", image.rpartition("/")[2])[0].lower()).strip("_")
    return words[:40] if words[:1].isalpha() else "box"


def _short(text: str) -> str:
    """Return a value to show in a hint; a long one, or one of several lines, only by three dots."""
    return text if len(text) <= 80 and text.isprintable() else "..."


def foreign_file(data: object) -> tuple[KeyPath, str] | None:
    """Return the first key that shows whose file this is, and the words for such a file; None if it may be ours."""
    if not isinstance(data, dict) or not isinstance(data.get("version", {}), dict):
        return None  # a pipeline has a version; a job of GitLab may have that name
    if isinstance(data.get("jobs"), dict):
        return ("jobs",), "a GitHub Actions workflow"
    if isinstance(data.get("stages"), list):
        return ("stages",), "a GitLab CI file"
    if "steps" not in data:
        for name, job in data.items():
            if isinstance(job, dict) and {"script", "trigger"} & job.keys():
                return (name,), "a GitLab CI file"
        return None
    for path, keys in _dagu_places(data):
        if found := next((key for key in keys if key in _OF_DAGU), None):
            return (*path, found), "a Dagu workflow"
    return None


_OF_DAGU = {
    "handlerOn",
    "handler_on",
    "depends",
    "retry_policy",
    "retryPolicy",
    "continue_on",
    "continueOn",
    "schedule",
}


def _dagu_places(data: Mapping[str, object]) -> Iterator[tuple[KeyPath, Mapping[str, object]]]:
    yield (), data
    steps = data["steps"]
    pairs = enumerate(steps) if isinstance(steps, list) else steps.items() if isinstance(steps, dict) else ()
    for key, step in pairs:
        if isinstance(step, dict):
            yield ("steps", key), step


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
    "hashFiles": _NO_CACHE,
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
            return _RESULT
        case ("conclusion" | "status", *_):
            return f"write {_of_step(step)}.outcome"
        case _:
            return ""


def of_variable(name: str) -> str:
    """Return what to write instead of a variable that another tool sets."""
    match name:
        case "GITHUB_ENV" | "GITHUB_PATH":
            return 'write `echo "NAME=value" >> "$PCC_ENV"`'
        case "GITHUB_OUTPUT":
            return _RESULT
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
