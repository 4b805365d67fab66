"""Keep the bed's files in one folder that several processes share."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPO = HERE.parent.parent
# cache/ and vms/ must share a file system, because a VM's image layers are hard links into the cache.
STATE = Path(os.environ.get("PCCPIPE_TESTBED", "/var/tmp/pccpipe-testbed")).resolve()
CACHE = STATE / "cache"
VMS = STATE / "vms"
ENGINES = STATE / "engines"


class BedError(RuntimeError):
    """A failure of the bed itself, never of the code under test."""


@contextlib.contextmanager
def locked(name: str, *, shared: bool = False) -> Iterator[None]:
    """Hold one of the bed's locks. A lock works between processes and between threads, and ends with its holder."""
    STATE.mkdir(parents=True, exist_ok=True)
    with (STATE / f".{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


def call(*argv: str | Path, stdin: str | None = None, env: dict[str, str] | None = None) -> str:
    """Run one of the bed's commands, and return its output. Raise a BedError with the command's words if it fails."""
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        words = (done.stderr or done.stdout).strip()
        raise BedError(f"{' '.join(map(str, argv))}: exit {done.returncode}: {words[-2000:]}")
    return done.stdout


def tried(*argv: str | Path) -> bool:
    """Run a command that may fail, for example because its object is already gone."""
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def start_apart(argv: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a process that writes to `log`, may outlive this one, and does not get this terminal's Ctrl-C."""
    with log.open("ab") as output:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)


def wait_for(what: str, ready: Callable[[], bool], seconds: float) -> None:
    """Poll until `ready` is true. Raise a BedError that names `what` after the time limit."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise BedError(f"{what}: not within {seconds:g} s")
        time.sleep(0.02)


def this_process() -> str:
    """Identify this process by its id and its start time, which no later process can have."""
    return f"{os.getpid()} {_start_time(os.getpid())}"


def is_alive(owner: str) -> bool:
    """Return whether the process that `this_process` described still runs."""
    pid, _, started = owner.partition(" ")
    return _start_time(int(pid)) == started


def _start_time(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # Field 22. The second field is the name, in parentheses, and may contain any character.
    return stat.rpartition(")")[2].split()[19]
