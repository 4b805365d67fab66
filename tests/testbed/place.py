"""Where the bed keeps its things, and how several processes share them."""

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
# cache/ and vms/ must share a file system, as a VM's image layers are hard links into the cache.
STATE = Path(os.environ.get("PCCPIPE_TESTBED", "/var/tmp/pccpipe-testbed")).resolve()
CACHE = STATE / "cache"
VMS = STATE / "vms"
ENGINES = STATE / "engines"


class BedError(RuntimeError):
    """The bed itself could not do what it was asked; never the fault of what is being tested."""


@contextlib.contextmanager
def locked(name: str, *, shared: bool = False) -> Iterator[None]:
    """Hold one of the bed's locks. They work between processes and between threads, and end with their holder."""
    STATE.mkdir(parents=True, exist_ok=True)
    with (STATE / f".{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


def call(*argv: str | Path, stdin: str | None = None, env: dict[str, str] | None = None) -> str:
    """Run a command of the bed's own; its output, or a BedError that has the command's words."""
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        words = (done.stderr or done.stdout).strip()
        raise BedError(f"{' '.join(map(str, argv))}: exit {done.returncode}: {words[-2000:]}")
    return done.stdout


def tried(*argv: str | Path) -> bool:
    """Run a command that may fail, as when what it removes is gone already."""
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def start_apart(argv: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a process that this terminal's Ctrl-C does not reach and that may outlive this one; it writes to `log`."""
    with log.open("ab") as output:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)


def wait_for(what: str, ready: Callable[[], bool], seconds: float) -> None:
    """Poll until `ready` says so; a BedError that names `what` when it does not in time."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise BedError(f"{what}: not within {seconds:g} s")
        time.sleep(0.02)


def this_process() -> str:
    """This process in words that no later process can have: its id and its start time."""
    return f"{os.getpid()} {_start_time(os.getpid())}"


def is_alive(owner: str) -> bool:
    """Does the process that `this_process` described still run?"""
    pid, _, started = owner.partition(" ")
    return _start_time(int(pid)) == started


def _start_time(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # Field 22; the second field is the name, in parentheses, and may contain anything.
    return stat.rpartition(")")[2].split()[19]
