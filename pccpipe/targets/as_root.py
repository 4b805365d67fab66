"""Runs pccpipe's own scripts in a workspace as root, in a container of an image that the pipeline runs as root."""

from __future__ import annotations

import contextlib
import secrets
import shlex
import time
from collections.abc import Iterable

from pccpipe.errors import PccpipeError
from pccpipe.target import Command, ContainerSettings, Exit, Target

LIMIT = 300
"""Seconds that a script may take."""
REMOVE_ALL = "rm -rf ./* ./.[!.]* ./..?*"
OPEN_UP_ROOTS = "find . -user 0 ! -type l -exec chmod a+rwX {} +"
"""Lets everybody read and remove root's files in the workspace, and changes no others."""


def open_up(paths: Iterable[str]) -> str:
    """Return a script that lets everybody read these files and folders of the workspace, with their contents."""
    return f"chmod -R a+rX -- {shlex.join(f'./{path}' for path in paths)}"


def run_as_root(target: Target, image: str, script: str, workspace: str = "") -> bool:
    """Run a script in the workspace, or a step's copy of it, as root of a container; return whether it succeeded."""
    settings = ContainerSettings(
        image,
        network="none",
        memory=1 << 30,
        pids=100,
        read_only_root=True,
        root=True,
        capabilities=("DAC_OVERRIDE", "FOWNER"),
    )
    command = Command(
        id=f"as-root-{secrets.token_hex(4)}",
        step="as-root",
        serial=1,
        script=script,
        workspace=workspace,
        limit=LIMIT,
        container=settings,
    )
    try:
        running = target.start(command)
    except (PccpipeError, ConnectionError, TimeoutError):
        return False
    until = time.monotonic() + LIMIT
    with contextlib.suppress(PccpipeError):
        while time.monotonic() < until:
            if isinstance(ended := running.read(1.0), Exit):
                running.discard()
                return ended.code == 0
    running.stop(0)
    running.discard()
    return False
