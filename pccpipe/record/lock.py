"""Locks a run: one process at a time runs it. The kernel releases the lock when the process ends."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from types import TracebackType

import msgspec
from msgspec import Struct

from pccpipe.errors import RunHeld, UsageError
from pccpipe.layout import LOCK
from pccpipe.record.machine_id import machine_id


class RunLock:
    """The lock on a file in the run's folder. `take` raises RunHeld if another process holds it."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / LOCK
        self._fd: int | None = None

    def take(self) -> None:
        """Take the lock for this process."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            holder, run_id = _holder(self._path), self._path.parent.name
            raise RunHeld(
                f"run {run_id} is running, in process {holder.pid} on {holder.host}",
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
        """Release the lock; idempotent."""
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
    """A process that holds or held the lock."""

    host: str = ""
    """The machine's name, for people."""
    pid: int = 0
    machine: str = ""
    """Its `machine_id`; empty in locks of earlier versions."""

    @property
    def is_of_here(self) -> bool:
        """True if its machine is this one, or the file does not say."""
        if self.machine and (this_machine := machine_id()):
            return self.machine == this_machine
        return self.host in {socket.gethostname(), ""}


def is_abandoned(run_dir: Path) -> bool:
    """Say whether the process that ran it is certainly gone: never of one on another machine."""
    holder = last_holder(run_dir)
    return holder is not None and holder.is_of_here


def last_holder(run_dir: Path) -> Holder | None:
    """Return the last holder, if no process that this machine knows holds the lock."""
    path = run_dir / LOCK
    return _holder(path) if _is_free(path) else None


def was_held_here(run_dir: Path) -> bool:
    """Say whether a process of this machine held the lock last. No file from elsewhere says so: the id is private.

    True while a process holds it: that one writes its name just now.
    """
    path = run_dir / LOCK
    is_free = _is_free(path, os.O_NOFOLLOW | os.O_NONBLOCK)
    if not is_free:
        return is_free is False
    holder, this_machine = _holder(path), machine_id()
    return holder.machine == this_machine and (bool(this_machine) or holder.host == socket.gethostname())


def _is_free(path: Path, flags: int = 0) -> bool | None:
    """Say whether no process holds the lock; None if that cannot be known."""
    try:
        fd = os.open(path, os.O_RDONLY | flags)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    finally:
        os.close(fd)
    return True


def _holder(path: Path) -> Holder:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Holder)
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError):
        return Holder()
