"""Checks the machine on which pccpipe runs: its Python, its git, and the disk with the records of runs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pccpipe import version
from pccpipe.checkup.check import Check, Finding, Fix, FixPlace, ok, warning, wrong
from pccpipe.checkup.context import CheckContext
from pccpipe.errors import Unavailable
from pccpipe.machine.listening import listen_at
from pccpipe.machine.local import LocalMachine
from pccpipe.targets.container_files import LEAST_FREE
from pccpipe.workspace.names import takes_for_one

TESTED = ((3, 11), (3, 12), (3, 13))
LITTLE_DISK = 1 << 30
FEW_DESCRIPTORS = 256
"""A run on a VM needs about 10, 32 local steps side by side about 50."""
_PAGE = "docs/controllers.md"


def system(_: CheckContext) -> Finding:
    """Name the system and Python, and say whether both are tested."""
    named, python = os.uname(), platform.python_version()
    libc = " ".join(platform.libc_ver()).strip() or ("musl" if Path("/etc/alpine-release").exists() else "")
    words = f"Python {python} on {named.sysname} {named.release} {named.machine}{f' ({libc})' if libc else ''}"
    if named.sysname not in {"Linux", "Darwin"}:
        return warning(f"{words}: tested on Linux, intended for macOS, not for this system ({_PAGE})")
    if tuple(map(int, platform.python_version_tuple()[:2])) not in TESTED:
        return warning(f"{words}: tested with {', '.join(f'{major}.{minor}' for major, minor in TESTED)}")
    return ok(f"{words}{'; limits on macOS: ' + _PAGE if named.sysname == 'Darwin' else ''}")


def git(_: CheckContext) -> Finding:
    """Check that git works on this machine: it makes the diff of a run."""
    done = LocalMachine().run("command -v git >/dev/null || { echo there is no git >&2; exit 1; }; git --version", 15)
    said = (done.stdout if done.code == 0 else done.stderr).decode(errors="replace").strip()
    if done.code == 0:
        return ok(said)
    if os.uname().sysname == "Darwin":
        return wrong(said, Fix("xcode-select --install", FixPlace.HERE))
    install = "apk add git" if shutil.which("apk") else "apt-get install -y git"
    return wrong(said, Fix(f"{'' if os.getuid() == 0 else 'sudo '}{install}", FixPlace.HERE))


def descriptors(_: CheckContext) -> Finding:
    """Check how many files and connections a process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    words = f"{'any number of' if soft < 0 else soft} files and connections open at a time"
    if 0 <= soft < FEW_DESCRIPTORS:
        most = "unlimited" if hard < 0 else str(hard)
        return warning(f"only {words} (ulimit -n; at most {most})", Fix("ulimit -n 4096", FixPlace.HERE))
    return ok(words)


def room(context: CheckContext) -> Finding:
    """Check the room for records of runs: each has logs and two copies of the workspace."""
    folder = _nearest(context.options.runs_dir)
    free = shutil.disk_usage(folder).free
    words = f"{free / (1 << 30):.1f} GB free for {context.options.runs_dir}"
    clear = Fix(context.pccpipe("gc"), FixPlace.HERE)
    if free < LEAST_FREE << 10:
        return wrong(f"only {words}: a run waits for room, then stops", clear)
    return warning(f"only {words}", clear) if free < LITTLE_DISK else ok(words)


def clock(_: CheckContext) -> Finding:
    """Check that the clock is not behind pccpipe's own files: certificates would not yet be valid."""
    made = Path(version.__file__).stat().st_mtime
    now = time.time()
    said = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    return wrong(f"the clock says {said}, which is before pccpipe was installed") if now < made - 86400 else ok(said)


def files(context: CheckContext) -> Finding:
    """Try what runs need from the file system of their records."""
    folder = _nearest(context.options.runs_dir)
    try:
        with tempfile.TemporaryDirectory(prefix=".pccpipe-doctor-", dir=folder) as made:
            lacks = list(_lacks(Path(made)))
            one = takes_for_one(Path(made))
    except OSError as error:
        return wrong(f"{folder} cannot be written: {error.strerror or error}; name another folder with --runs-dir")
    if "locks" in lacks:
        return wrong(f"{folder} has no {', '.join(lacks)}: two processes could run one run; use another --runs-dir")
    words = "; names that differ only in case or Unicode form are the same" if one else ""
    if lacks:
        return warning(f"{folder} has no {', '.join(lacks)}; keep records on a disk of this machine ({_PAGE}){words}")
    return ok(f"{folder}: locks, links, modes, sockets, exact times{words}")


def _lacks(folder: Path) -> Iterator[str]:
    """Name what the file system of a folder lacks."""
    file = folder / "file"
    file.write_bytes(b"")
    if not _locks(file):
        yield "locks"
    with contextlib.suppress(OSError):
        (folder / "link").symlink_to("file")
    if not (folder / "link").is_symlink():
        yield "links"
    file.chmod(0o600)
    kept = file.stat().st_mode & 0o777
    file.chmod(0o755)
    if (kept, file.stat().st_mode & 0o777) != (0o600, 0o755):
        yield "modes"
    if not _takes_sockets(folder):
        yield "sockets"
    os.utime(file, ns=(1_700_000_000_123_456_789, 1_700_000_000_123_456_789))
    if file.stat().st_mtime_ns % 1_000_000_000 == 0:
        # Files that came back look changed each time, and are sent again.
        yield "times finer than a second"


def _locks(file: Path) -> bool:
    """Say whether a lock of one descriptor keeps out another."""
    with file.open("rb") as first, file.open("rb") as second:
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        return False


def _takes_sockets(folder: Path) -> bool:
    try:
        listen_at(str(folder / "s"), lambda stream: stream.close()).close()
    except Unavailable:
        return False
    return True


def _nearest(path: Path) -> Path:
    """Return the folder itself, or the nearest existing one around it."""
    return next((each for each in (path, *path.parents) if each.is_dir()), Path("/"))


CHECKS = [
    Check("here", system),
    Check("here-git", git),
    Check("here-limits", descriptors),
    Check("here-files", files),
    Check("here-clock", clock),
]
BESIDE_VM = [Check("here-disk", room)]
"""The check that has another name where steps run on this machine."""
