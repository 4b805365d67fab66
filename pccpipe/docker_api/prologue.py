"""The program that a container's shell reads on stdin: the only way in for the environment and the secrets."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence

from pccpipe.docker_api import home, relay
from pccpipe.docker_api.settings import BEGUN, END_OF_PROLOGUE, HOME, IN, NO_SHELL, OUT, SYSTEM_PATH, WORKSPACE
from pccpipe.target import Command

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
    if command.container and command.container.read_only_workspace:
        own |= NO_REPOSITORY_BY_SHAPE
    values = {**own, **command.env, **command.secrets}
    lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    folder = shlex.quote(f"{WORKSPACE}/{command.cwd}")
    shell, *options = map(shlex.quote, shlex.split(command.shell))
    run = f'"$pcc_shell" {" ".join([*options, f"{IN}/{SCRIPT}"])} </dev/null'
    lines += [
        f"pcc_path=$PATH; PATH=${{PATH:+$PATH:}}{SYSTEM_PATH}",
        f"pcc_shell=$(command -v {shell}) || exit {NO_SHELL}",
        *looks,
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
