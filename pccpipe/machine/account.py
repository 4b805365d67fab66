"""The account that runs the code of steps on a machine, beside the login (`vm: {run_as: NAME}`)."""

from __future__ import annotations

import shlex

from msgspec import Struct

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROCESSES = 8192
"""The most processes that a step of the account may have at a time.

The step itself sets this limit. A limit of PAM would also count the process that the sweep needs, and could refuse it.
"""


class Account(Struct, frozen=True):
    """An account on a machine, and a run's folders that belong to it. Paths are the machine's own."""

    name: str
    uid: int
    gid: int
    login_uid: int
    """The uid that becomes the account; 0 needs no sudo for it."""
    has_engine: bool
    """True if the account may use an engine's socket there."""
    workspace: str
    io: str
    """The folder for the in, out and HOME folders of commands."""
    shared_home: tuple[str, ...] = ()
    """Folders with tools, whose `bin` comes first in PATH."""

    @property
    def user(self) -> str:
        """The account as the record names it."""
        return f"{self.uid}:{self.gid}"

    @property
    def become(self) -> tuple[str, ...]:
        """The words in front of a command line that run it as the account."""
        if self.login_uid == 0:
            return ("setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", "--init-groups", "--")
        return ("sudo", "-n", "-u", self.name, "--")

    def folder_of(self, command_id: str, kind: str) -> str:
        """Return the command's folder `in`, `out` or `home`."""
        return f"{self.io}/{command_id}.{kind}"

    def environment(self, command_id: str) -> str:
        """Return lines of sh that set the variables of a login, and none that the login user has."""
        values = {
            "HOME": self.folder_of(command_id, "home"),
            "USER": self.name,
            "LOGNAME": self.name,
            "SHELL": "/bin/sh",
            "PATH": ":".join([*(f"{folder}/bin" for folder in self.shared_home), PATH]),
        }
        return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())
