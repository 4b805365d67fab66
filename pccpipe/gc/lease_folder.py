"""Finds files in the lease's folder on a VM that are not leases: odd links, numbers out of bounds, files, folders."""

from __future__ import annotations

import shlex
from pathlib import Path

from msgspec import Struct

from pccpipe.errors import Unavailable
from pccpipe.machine import lease
from pccpipe.machine.answers import number
from pccpipe.machine.base import Machine
from pccpipe.machine.retry import reconnecting
from pccpipe.machine.script import shell_functions
from pccpipe.outcome import Reason

TIMEOUT = 120.0


class StrayFiles(Struct, frozen=True):
    """The files in the lease's folder that are not leases.

    Attributes:
        folder: the folder of the lease.
        count: the number of those files.
        names: the names of the first ones.
    """

    folder: str
    count: int = 0
    names: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """A sentence that names them; empty if there are none."""
        if not self.count:
            return ""
        if self.names == (".",):
            return f"{self.folder} is not a folder"
        more = f" and {self.count - 5} more" if self.count > 5 else ""
        are = "are not leases" if self.count > 1 else "is not a lease"
        return f"in {self.folder}: {', '.join(map(repr, self.names[:5]))}{more} {are}"


def stray_files(machine: Machine, root: str, *, remove: bool = False) -> StrayFiles:
    """Find them, and with `remove` remove them; keep every lease, even an old one. Raises `Unavailable`."""
    folder = lease.folder_of(root)
    text = shell_functions(Path(__file__).with_name("lease_folder.sh"))
    call = "pcc_find_stray_files remove" if remove else "pcc_find_stray_files"
    script = f"pcc_lease={shlex.quote(folder)}\n{lease.program()}{text}{call}"
    done = reconnecting(machine, lambda: machine.run(script, TIMEOUT))
    if done.code:
        words = done.stderr.decode(errors="replace").strip() or f"exit status {done.code}"
        raise Unavailable(Reason.WORKSPACE_REFUSED, f"{machine.host}: {folder} is not readable: {words}")
    fields = done.stdout.decode(errors="replace").split("\0")[:-1]
    if not fields:
        return StrayFiles(folder)
    return StrayFiles(folder, number(machine.host, "a count", fields[0]), tuple(fields[1:]))
