"""What lies in the lease's folder on a VM and is no lease: strange links, numbers out of bounds, files, folders."""

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


class Marks(Struct, frozen=True):
    """Attributes:
    folder: that of the lease.
    count: how many things there are no lease.
    names: of the first of them.
    """

    folder: str
    count: int = 0
    names: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """Name them in a sentence; "" if there are none."""
        if not self.count:
            return ""
        if self.names == (".",):
            return f"{self.folder} is no folder"
        more = f" and {self.count - 5} more" if self.count > 5 else ""
        are = "are no leases" if self.count > 1 else "is no lease"
        return f"in {self.folder}: {', '.join(map(repr, self.names[:5]))}{more} {are}"


def wrong_marks(machine: Machine, root: str, *, remove: bool = False) -> Marks:
    """Find them, and remove them if so asked. A lease, also one that is over, stays. Raises `Unavailable`."""
    folder = lease.folder_of(root)
    text = shell_functions(Path(__file__).with_name("marks.sh"))
    call = "pcc_marks remove" if remove else "pcc_marks"
    script = f"pcc_lease={shlex.quote(folder)}\n{lease.program()}{text}{call}"
    done = reconnecting(machine, lambda: machine.run(script, TIMEOUT))
    if done.code:
        words = done.stderr.decode(errors="replace").strip() or f"exit status {done.code}"
        raise Unavailable(Reason.WORKSPACE_REFUSED, f"{machine.host}: {folder} cannot be looked into: {words}")
    said = done.stdout.decode(errors="replace").split("\0")[:-1]
    if not said:
        return Marks(folder)
    return Marks(folder, number(machine.host, "a count", said[0]), tuple(said[1:]))
