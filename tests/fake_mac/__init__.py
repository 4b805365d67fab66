"""Run commands as if this machine were a Mac; README.md says how far that goes."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from pccpipe.machine.base import Facts, Process
from pccpipe.machine.local import LocalMachine, LocalProcess
from tests.testbed.place import BedError

HERE = Path(__file__).parent
_TOOLS = (
    "[ awk base64 basename bc cat chgrp chmod chown cksum clear cmp comm cp cut date dd df diff dirname du "
    "echo ed env expand expr false fold getopt grep egrep fgrep gunzip gzip head hostname id install join "
    "kill killall less ln logname ls mkdir mkfifo mktemp more mv nc nice nl nohup od paste patch pr printenv "
    "printf pwd readlink renice reset rm rmdir sed seq sleep sort split strings stty su sum sync tail tar tee "
    "test time touch tr true tty unexpand uniq uptime vi wc which whoami xxd yes "
)
"""The busybox tools that macOS has too. Not: timeout, setsid, tac, nproc, flock, getent, ip, sha256sum."""
_ALSO = ("xargs", "git", "ssh", "ssh-add", "ssh-keygen", "curl", "docker")


@dataclass
class FakeMac:
    """A Mac at `folder`, which must have a short path.

    Args:
        one_name: folders in which names that differ only in case or normal form are one.
    """

    folder: Path
    one_name: tuple[Path, ...] = ()
    name: str = "mac.local"
    """Its host name, which changes with its network."""

    @staticmethod
    def made(folder: Path, *one_name: Path) -> FakeMac:
        """Make its folder, with the programs of its PATH."""
        lacks = [name for name in ("busybox", "bash", "unshare") if not shutil.which(name)]
        if lacks or os.geteuid():
            raise BedError(f"no fake Mac here: {f'there is no {lacks[0]}' if lacks else 'it takes root'}")
        for name in ("bin", "proc", "dev"):
            (folder / name).mkdir(parents=True)
        tools = folder / "bin"
        for name in _TOOLS.split():
            (tools / name).symlink_to(str(shutil.which("busybox")))
        for name in _ALSO:
            if path := shutil.which(name):
                (tools / name).symlink_to(path)
        for name in ("sh", "bash"):
            (tools / name).symlink_to(str(shutil.which("bash")))
        for tool in (HERE / "bin").iterdir():
            made = tools / tool.name
            made.write_text(tool.read_text())
            made.chmod(0o755)
        return FakeMac(folder, one_name)

    @property
    def synced(self) -> str:
        """Return the syncs so far, a letter each: B for F_BARRIERFSYNC, F for F_FULLFSYNC, s for fsync."""
        path = self.folder / "synced"
        return path.read_text() if path.exists() else ""

    def argv(self, argv: Sequence[str]) -> list[str]:
        """Return the command line that runs this one there. It becomes the command's own process."""
        launch = (
            "unshare",
            "--mount",
            "--uts",
            "--propagation",
            "private",
            "sh",
            str(HERE / "launch.sh"),
            str(self.folder),
        )
        return [*launch, *argv]

    @property
    def env(self) -> dict[str, str]:
        """Return the variables that its environment adds. Its first folder of PYTHONPATH must stay the first."""
        return {
            "PYTHONPATH": str(HERE / "site"),
            "FAKE_MAC_NAME": self.name,
            "FAKE_MAC_PROC": str(self.folder / "proc"),
            "FAKE_MAC_SYNCED": str(self.folder / "synced"),
            "FAKE_MAC_ONE_NAME": ":".join(map(str, self.one_name)),
            "FAKE_MAC_REAL_PYTHON": sys.executable,
            "FAKE_MAC_PYTHON": str(self.folder / "bin" / "python3"),
        }


class MacHere(LocalMachine):
    """A fake Mac as the machine that scripts run on."""

    def __init__(self, mac: FakeMac) -> None:
        super().__init__()
        self._mac = mac

    @property
    def facts(self) -> Facts:
        return replace(LocalMachine().facts, system="Darwin")

    def popen(self, command: str) -> Process:
        return LocalProcess(shlex.join(self._mac.argv(["sh", "-c", command])), {**os.environ, **self._mac.env})
