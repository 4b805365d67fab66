"""One process at a time runs a run: a lock on a file in its folder, which the kernel lets go when the process ends."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from types import TracebackType

import msgspec
from msgspec import Struct

from pccpipe.errors import UsageError
from pccpipe.layout import LOCK
from pccpipe.record.machine_id import machine_id


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
            holder, run_id = _holder(self._path), self._path.parent.name
            raise UsageError(
                f"the run {run_id!r} is being run, by process {holder.pid} of {holder.host}",
                f"to end it: pccpipe cancel {run_id}",
            ) from None
        except OSError as error:
            os.close(fd)
            raise UsageError(
                f"the disk of {self._path.parent} has no locks: {error.strerror}",
                "give a folder on a disk of this machine as --runs-dir: without a lock two processes could run one run",
            ) from error
        os.ftruncate(fd, 0)
        os.write(fd, msgspec.json.encode(Holder(socket.gethostname(), os.getpid(), machine_id())))
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


class Holder(Struct, frozen=True):
    """A process that has or had the lock."""

    host: str = ""
    """The machine's name, for people."""
    pid: int = 0
    machine: str = ""
    """Its `machine_id`; earlier versions wrote none."""

    @property
    def is_of_here(self) -> bool:
        """Whether its machine is this one; also if the file does not say."""
        if self.machine and (here := machine_id()):
            return self.machine == here
        return self.host in {socket.gethostname(), ""}


def is_abandoned(run_dir: Path) -> bool:
    """Whether the process that ran it is certainly gone. Of another machine's nothing is certain."""
    holder = last_holder(run_dir)
    return holder is not None and holder.is_of_here


def last_holder(run_dir: Path) -> Holder | None:
    """Give who ran it last, if no process that this machine knows of has its lock."""
    path = run_dir / LOCK
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return None
    finally:
        os.close(fd)
    return _holder(path)


def _holder(path: Path) -> Holder:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Holder)
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError):
        return Holder()
