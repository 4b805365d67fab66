"""One process at a time runs a run: a lock on a file in its folder, which the kernel lets go when the process ends."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from pathlib import Path
from types import TracebackType

from pccpipe.errors import UsageError

LOCK = "lock"


class RunLock:
    """Held from `take` until `release`. Raises UsageError if another process has it."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / LOCK
        self._fd: int | None = None

    def take(self) -> None:
        """Become the process that runs the run."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            host, pid = _holder(self._path)
            run_id = self._path.parent.name
            raise UsageError(
                f"the run {run_id!r} is being run, by process {pid} of {host}",
                f"to end it: pccpipe cancel {run_id}",
            ) from None
        os.ftruncate(fd, 0)
        os.write(fd, json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode())
        self._fd = fd

    def release(self) -> None:
        """Let it go; idempotent."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> RunLock:
        self.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def is_abandoned(run_dir: Path) -> bool:
    """Whether the process that ran it is certainly gone. Of another host's nothing is certain."""
    path = run_dir / LOCK
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return _holder(path)[0] in {socket.gethostname(), ""}


def _holder(path: Path) -> tuple[str, int]:
    try:
        data = json.loads(path.read_bytes())
        return str(data["host"]), int(data["pid"])
    except (OSError, ValueError, LookupError, TypeError):
        return "", 0
