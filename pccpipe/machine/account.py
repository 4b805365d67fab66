"""The account that the workspace's code runs as on a machine, beside the login (`vm: {run_as: NAME}`)."""

from __future__ import annotations

import shlex

from msgspec import Struct

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROCESSES = 8192
"""The most that the account may have at a time, as far as a step's own processes go. It is set by the step's own limits
and not by PAM's, so that the sweep, which needs a process of the account too, is never refused one.
"""


class Account(Struct, frozen=True):
    """An account on a machine, and a run's folders that belong to it. Paths are the machine's own."""

    name: str
    uid: int
    gid: int
    login_uid: int
    """Whose commands become the account's; 0 needs no sudo for it."""
    has_engine: bool
    """Whether it may use an engine's socket there."""
    workspace: str
    io: str
    """For the in, out and HOME folders of commands."""
    shared_home: tuple[str, ...] = ()
    """Folders with tools, whose `bin` comes first in PATH."""

    @property
    def user(self) -> str:
        """As the record names it."""
        return f"{self.uid}:{self.gid}"

    @property
    def become(self) -> tuple[str, ...]:
        """The words before a command line that run it as the account."""
        if self.login_uid == 0:
            return ("setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", "--init-groups", "--")
        return ("sudo", "-n", "-u", self.name, "--")

    def folder_of(self, command_id: str, kind: str) -> str:
        """The command's `in`, `out` or `home`."""
        return f"{self.io}/{command_id}.{kind}"

    def environment(self, command_id: str) -> str:
        """Lines of sh that set what a login would, and nothing that the login user has."""
        values = {
            "HOME": self.folder_of(command_id, "home"),
            "USER": self.name,
            "LOGNAME": self.name,
            "SHELL": "/bin/sh",
            "PATH": ":".join([*(f"{folder}/bin" for folder in self.shared_home), PATH]),
        }
        return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())
