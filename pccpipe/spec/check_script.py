"""Checks the scripts of a step and its fallback together with the programs that run them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pccpipe.search_path import AGENT_PATH, reaches_workspace
from pccpipe.shells import dialect_of
from pccpipe.spec.containers import extended
from pccpipe.spec.data import mapping
from pccpipe.spec.names import Visible
from pccpipe.spec.position import KeyPath
from pccpipe.spec.shebang import language_problem, shebang_problem, shell_of
from pccpipe.spec.texts import ValueChecker
from pccpipe.values import Json


def check_scripts(
    values: ValueChecker,
    path: KeyPath,
    step: Mapping[str, Json],
    defaults: Mapping[str, Json],
    defaults_at: KeyPath,
    visible: Visible,
) -> str:
    """Check `run:`, `shell:` and `shell_options:` of a step and its fallback; return the shell of the step's script."""
    default, own = _text(defaults.get("shell")), _text(step.get("shell"))
    _script(values, (*path, "run"), step.get("run"), own, default, visible)
    fallback = mapping(step.get("fallback"))
    if fallback:
        has_run = "run" in fallback
        script, at = (fallback["run"], (*path, "fallback", "run")) if has_run else (step.get("run"), (*path, "run"))
        its = _text(fallback.get("shell")) or (None if has_run else own)
        _script(values, at, script, its, own or default, visible)
    shell = shell_of(_text(step.get("run")) or "", own, default, reads_shebang=not values.older)
    at = path if "shell_options" in step else defaults_at
    _options(values, (*at, "shell_options"), step, defaults, shell)
    _exports(values, path, step)
    return shell


def check_path_of_agent(
    values: ValueChecker, path: KeyPath, step: Mapping[str, Json], data: Mapping[str, Json]
) -> None:
    """Find folders of the workspace in the PATH of a step whose program must not come from there."""
    fallback, defaults, containers = (
        mapping(each) for each in (step.get("fallback"), data.get("defaults"), data.get("containers"))
    )
    levels: list[tuple[KeyPath, Mapping[str, Json]]] = [
        ((), data),
        (("defaults",), defaults),
        (path, step),
        ((*path, "fallback"), fallback),
    ]
    boxes = [str(host.get("container", defaults.get("container"))) for host in (step, fallback)]
    for name in sorted({name for box in boxes if box in containers for name in extended(containers, box)}):
        levels.append((("containers", name), mapping(containers[name])))
    for level, where in levels:
        value = _text(mapping(where.get("env")).get("PATH"))
        # The executor looks again, with the values of expressions.
        if value and reaches_workspace(re.sub(r"\$\{\{.*?\}\}", "/", value)):
            message = f"a folder of the workspace in the PATH of `{step.get('id')}`: {AGENT_PATH}"
            values.say((*level, "env", "PATH"), message, "set this PATH at the steps that need it")


def _script(
    values: ValueChecker, path: KeyPath, script: Json, own: str | None, default: str | None, visible: Visible
) -> None:
    text = _text(script) or ""
    shell = shell_of(text, own, default, reads_shebang=not values.older)
    problem = None if values.older else shebang_problem(text, own) or language_problem(shell)
    if problem:
        values.say(path, *problem)
    else:
        values.script(path, script, shell, visible)


def _options(
    values: ValueChecker, path: KeyPath, step: Mapping[str, Json], defaults: Mapping[str, Json], shell: str
) -> None:
    options = step.get("shell_options", defaults.get("shell_options"))
    if dialect_of(shell) == "sh" and isinstance(options, list) and "pipefail" in options:
        values.say(path, "`pipefail` is an option of bash, and the shell is sh", "set `shell: bash`")
    elif not dialect_of(shell) and "shell_options" in step:
        message = f"`shell_options` are options of sh and bash, and `{shell}` runs this script"
        values.say(path, message, "write options behind the program: `shell: python3 -u`", at_key=True)


def _exports(values: ValueChecker, path: KeyPath, step: Mapping[str, Json]) -> None:
    """Find a script that exports variables which no later step would get."""
    if not re.search(r"\bPCC_ENV\b", _text(step.get("run")) or ""):
        return
    where = "a step of `parallel:`" if path[-2:-1] == ("parallel",) else ""
    where = "a leg of a matrix" if "matrix" in step else where
    if step.get("background") is True:
        where = "a background command"
    if where:
        hint = "let it write a `result:`, which later steps read as steps.ID.result"
        if "matrix" in step:
            hint = "put the `matrix:` on a group with this step and the steps that use the variables"
        values.say((*path, "run"), f"no later step gets the variables that {where} exports by $PCC_ENV", hint)


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) else None
