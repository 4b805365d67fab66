"""Time commands as whole processes, in turn, so that a drift of the machine's speed affects all alike."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

# As for users: with the bytecode that an installation leaves, and with Python's own buffering of output.
_NOT_A_USERS = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONPATH")


@dataclass(frozen=True)
class Usage:
    """Resources of one process, as the kernel counts them."""

    wall: float
    cpu: float
    """User and system seconds, also of the children that it waited for."""
    peak: int
    """Bytes of memory."""


@dataclass(frozen=True)
class Times:
    """The seconds of each round."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def ratio_to(self, other: Times) -> float:
        """Return the median of the rounds' ratios."""
        return statistics.median(a / b for a, b in zip(self.seconds, other.seconds, strict=True))


def in_turn(jobs: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Times]:
    """Run each job once uncounted, then all of them `rounds` times: A B C A B C ..."""
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(rounds + 1):
        for name, job in jobs.items():
            seconds = job()
            if number:
                taken[name].append(seconds)
    return {name: Times(name, tuple(seconds)) for name, seconds in taken.items()}


def run(argv: Sequence[str], env: Mapping[str, str] | None = None, cwd: str | None = None) -> Usage:
    """Run a whole process that must exit 0."""
    users = {name: value for name, value in os.environ.items() if name not in _NOT_A_USERS}
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            argv, env={**users, **(env or {})}, cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        _, status, used = os.wait4(process.pid, 0)
        took = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(max(0, output.tell() - 4000))
            said = output.read().decode(errors="replace")
            raise RuntimeError(f"{' '.join(argv)}: exit status {process.returncode}\n{said}")
    return Usage(took, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def wall(argv: Sequence[str], env: Mapping[str, str] | None = None, cwd: str | None = None) -> float:
    """Return the wall seconds of a whole process that must exit 0."""
    return run(argv, env, cwd).wall
