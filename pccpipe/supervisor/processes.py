"""Finds and signals the processes of a command. Without /proc it can only find the process group."""

from __future__ import annotations

import os

_FEW = 200
"""The most pids that it checks one by one."""


def newest() -> int:
    """Return the pid of the newest process on this machine; -1 if that is unknown."""
    try:
        with open("/proc/loadavg", "rb") as file:
            return int(file.read().split()[-1])
    except (OSError, ValueError, IndexError):
        return -1


def tagged(tag: bytes, after: int = 0, last: int = 0) -> list[int]:
    """List the processes with `tag` in their environment and a pid above `after`.

    Args:
        last: the highest pid to check; 0 for all.
    """
    own = os.getpid()
    if 0 < last - after < _FEW:
        # Listing all of them takes longer.
        numbers = list(range(after + 1, last + 1))
    else:
        numbers = [pid for pid in map(int, _numbers()) if pid > after]
    return [pid for pid in numbers if pid != own and tag in _read(f"/proc/{pid}/environ")]


def holders(pipes: set[str]) -> list[int]:
    """List the other processes that hold one of these pipes (`pipe:[NUMBER]`) open."""
    own = os.getpid()
    return [int(name) for name in _numbers() if int(name) != own and _holds(name, pipes)]


def can_look() -> bool:
    """Return whether this machine shows the environment of processes."""
    return os.path.exists("/proc/self/environ")


def signal_group(group: int, number: int) -> bool:
    """Signal a process group; return whether it exists. Signal 0 only checks that."""
    if group <= 1:  # its own group, or all processes
        return False
    try:
        os.killpg(group, number)
    except OSError:
        return False
    return True


def signal_one(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError:
        pass


def group_of(pid: int) -> int:
    """Return the process group of a process; 0 if the process does not exist."""
    try:
        return os.getpgid(pid)
    except OSError:
        return 0


def _numbers() -> list[str]:
    try:
        return [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def _holds(name: str, pipes: set[str]) -> bool:
    folder = f"/proc/{name}/fd"
    try:
        for number in os.listdir(folder):
            try:
                if os.readlink(f"{folder}/{number}") in pipes:
                    return True
            except OSError:
                continue
    except OSError:
        pass
    return False


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read() or b""
    except OSError:
        return b""
