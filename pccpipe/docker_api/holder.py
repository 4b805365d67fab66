"""Starts and ends a container's holder: the process outside the container that ends it at its deadline (hold.sh)."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

from pccpipe.detached.programs import RunDir
from pccpipe.layout import COMMANDS
from pccpipe.machine.script import shell_functions

KIND = "hold"
"""The ending of the holder's file, among those of a command."""
_FILE = Path(__file__).with_name("hold.sh")


def functions(socket: str) -> str:
    """Return the text that must precede the calls below, with the engine's socket."""
    return f"pcc_socket={shlex.quote(socket)}\n{shell_functions(_FILE)}"


def start(place: RunDir, command_id: str, container: str, limit: float, grace: float) -> str:
    """Return a call that starts the holder, in a few milliseconds; it fails if the disk is full.

    Args:
        container: the name that the container will have.
        limit: seconds from the container's start.
        grace: seconds between TERM and KILL.
    """
    file = place.file_of(command_id, KIND)
    return shlex.join(["pcc_start", file, container, str(math.ceil(limit)), str(math.ceil(grace))])


def let_go(place: RunDir, command_ids: list[str]) -> str:
    """Return a call that ends the holders of commands whose containers are gone."""
    return shlex.join(["pcc_let_go", *(place.file_of(command_id, KIND) for command_id in command_ids)])


def let_all_go(place: RunDir) -> str:
    """Return the same for all commands of a run."""
    return f"pcc_let_go {shlex.quote(place.state)}/{COMMANDS}/*.{KIND}"


def probe() -> str:
    """Return a call that prints how a machine can hold a deadline: a program's name, `proc`, or an empty line."""
    return 'pcc_find_way; echo "$pcc_way"'
