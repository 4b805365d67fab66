"""Words of other tools, and what to write here: GitHub Actions, GitLab CI and Dagu.

One table a place: keys of a step, of the file, of a retry and a service. `foreign_text.py` has the names in expressions
and those of scripts. docs/coming-from.md has the same side by side.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from pccpipe.spec.position import KeyPath

PAGE = "docs/coming-from.md"

_IN_ORDER = "steps run in order; inside `parallel:` a step can name others in `needs:`"
NO_CACHE = "there are no caches: a VM, and an image, keep what is installed on them"
_FAIL_FAST = "write `fail_fast: true` in the step, next to `matrix:`; without it, all legs run"
_NO_TRIGGERS = "there are no triggers: a run begins with `pccpipe run`"
_ON_FAILURE = "put a step with `if: run.outcome == 'failed'` under `always:`"
_HANDLERS = "put steps under `always:`; those for failures with `if: run.outcome == 'failed'`"
RESULT = 'write JSON to "$PCC_OUT/x.json", add `result: {path: x.json}`, and read steps.ID.result.NAME'
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
    "artifacts": "a step of its own brings files back: `download: dist`",
    "before_script": "put the commands first in `run:`, or into a step of their own",
    "cache": NO_CACHE,
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
    "fail-fast": _FAIL_FAST,
    "interruptible": "`pccpipe cancel` ends any run",
    "only": "write a condition as `if: EXPRESSION`, such as `if: inputs.deploy`",
    "outputs": RESULT,
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
_DOWNLOAD: Mapping[str, Hint] = {
    "expire_in": "the record keeps files: `keep:` in the project file ends that",
    "if-no-files-found": "write `required: true`",
    "name": "leave it out: files keep their folders in the run's artifacts/",
    "path": "write `paths: [dist/]`",
    "retention-days": "the record keeps files: `keep:` in the project file ends that",
    "untracked": "write the paths of the files in `paths:`",
    "when": "put the step under `always:`, or write an `if:` in the step",
}
_PLACES: Mapping[str, Mapping[str, Hint]] = {
    "a step": _STEP,
    "the file": _FILE,
    "`prompt`": _PROMPT,
    "`retry`": _RETRY,
    "`download`": _DOWNLOAD,
}
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
        case ("matrix", "fail-fast"), _:
            return _FAIL_FAST
        case ("matrix", "max-parallel"), _:
            return "write `max_parallel:` in the step, next to `matrix:`"
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
