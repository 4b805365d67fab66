"""The program that a container's shell reads on stdin: the only way in for the environment and the secrets."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence

from pccpipe.docker_api import home, relay
from pccpipe.docker_api.settings import (
    BEGUN,
    BEGUN_FILE,
    END_OF_PROLOGUE,
    HOME,
    IN,
    NO_SHELL,
    OUT,
    SYSTEM_PATH,
    WORKSPACE,
)
from pccpipe.search_path import as_shell_word
from pccpipe.shells import dialect_of
from pccpipe.target import EXPORTS, Command

SCRIPT = ".script"
"""The file of the command's script, in the folder of its files."""
NO_REPOSITORY_BY_SHAPE = {
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "safe.bareRepository",
    "GIT_CONFIG_VALUE_0": "explicit",
}
"""Git ignores a folder that looks like a bare repository: its configuration could name programs to run."""


def prologue(command: Command, run_id: str, kill_after: float, looks: Sequence[str]) -> bytes:
    """Return the program that exports the environment and runs the script.

    Args:
        looks: shell lines that look around before the command begins.
    """
    own = {
        "HOME": HOME,
        "CODEX_HOME": f"{HOME}/.codex",
        "PCC_WORKSPACE": WORKSPACE,
        "PCC_RUN_ID": run_id,
        "PCC_IN": IN,
        "PCC_OUT": OUT,
    }
    if command.has_exports:
        own["PCC_ENV"] = f"{OUT}/{EXPORTS}"
    if command.container and command.container.read_only_workspace:
        own |= NO_REPOSITORY_BY_SHAPE
    values = {**own, **command.env, **command.secrets}
    words = {name: shlex.quote(value) for name, value in values.items()}
    if "PATH" in values:
        words["PATH"] = as_shell_word(values["PATH"], WORKSPACE, SYSTEM_PATH)
    folder = shlex.quote(f"{WORKSPACE}/{command.cwd}")
    shell, *options = map(shlex.quote, command.shell.split(" "))
    run = f'"$pcc_shell" {" ".join([*options, f"{IN}/{SCRIPT}"])} </dev/null'
    # The step's own PATH may name folders of the workspace: they give no shell, and pccpipe's own tools last.
    find = f"pcc_shell=$(command -v {shell}) || exit {NO_SHELL}" if dialect_of(command.shell) else f"pcc_shell={shell}"
    lines = [
        f"pcc_own=${{PATH:+$PATH:}}{SYSTEM_PATH}",
        *(f"export {name}={word}" for name, word in words.items()),
        f"pcc_path=$PATH; PATH=$pcc_own; {find}",
        "PATH=$pcc_own${pcc_path:+:$pcc_path}; pcc_own=$PATH",
        *looks,
        f"echo >{OUT}/{BEGUN_FILE} 2>/dev/null",
        f"echo '{BEGUN}'",
        _watchdog(math.ceil(command.limit), kill_after),
        'mkdir -p "$CODEX_HOME"',
        *(relay.lines(command.way_out) if command.is_proxied else []),
        *(home.unpack(command.memory, command.keeps.folder) if command.memory and command.keeps else []),
        f"PATH=$pcc_path; cd {folder} || exit 127",
        *(home.run_and_pack(run, command.keeps) if command.keeps else [f"exec {run}"]),
        END_OF_PROLOGUE,
    ]
    return "\n".join(lines).encode(errors="surrogateescape")


def _watchdog(limit: int, kill_after: float) -> str:
    """Return a line that ends everything in the container at the command's limit, also without pccpipe.

    It holds neither the output nor a folder of the workspace open, and it ends with the container. It needs only
    `sleep`: not every image's `timeout` knows the same options.
    """
    end = f"sleep {limit}; kill -TERM -1; sleep {kill_after:g}; kill -KILL -1"
    return f"(cd /; command -v sleep || exit; {end}) </dev/null >/dev/null 2>&1 &"
