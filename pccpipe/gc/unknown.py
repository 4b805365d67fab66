"""Lists processes of a VM's login of unknown origin: without `run_as`, a command of a run can leave some."""

from __future__ import annotations

import math
import re
import shlex
from pathlib import Path

from pccpipe import limits
from pccpipe.errors import Nonsense
from pccpipe.layout import SystemDir
from pccpipe.machine.base import Machine
from pccpipe.machine.retry import reconnecting
from pccpipe.machine.script import shell_functions

TIMEOUT = 30.0
LATENCY = 2.0
"""Seconds that the script may take to reach a busy VM: meanwhile processes grow older."""
_LINE = re.compile("[0-9]{1,10} .{0,2000}")


def unknown_processes(machine: Machine, root: str, younger_than: float | None = None) -> list[str]:
    """Return the first twenty, each with its PID and command line; none for root as the login. Raises `Unavailable`.

    Args:
        younger_than: the most seconds of their age, give or take `LATENCY`; None for any age.
    """
    if machine.facts.uid == 0:
        return []
    text = shell_functions(Path(__file__).with_name("unknown.sh"))
    age = "" if younger_than is None else str(math.ceil((younger_than + LATENCY) * 100))
    script = f"pcc_system={shlex.quote(SystemDir.on_vm(root).path)} pcc_age={age}\n{text}"
    done = reconnecting(machine, lambda: machine.run(script, TIMEOUT))
    lines = done.stdout.decode(errors="replace").split("\n")[:-1]
    wrong = [line for line in lines if not _LINE.fullmatch(line)]
    if wrong or len(lines) > limits.PROCESSES_LISTED.most:
        raise Nonsense(machine.host, "list of processes", wrong[0] if wrong else f"{len(lines)} lines")
    return lines


def in_words(user: str, lines: list[str]) -> str:
    """Return a sentence that names them."""
    more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
    return f"no session, service or run began these processes of {user}: {'; '.join(lines[:3])}{more}"
