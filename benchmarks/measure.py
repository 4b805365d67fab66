"""Timing: commands as whole processes, in turn, so that a machine whose speed drifts is fair to all."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Times:
    """Seconds of each round."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def in_turn(jobs: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Times]:
    """Run each job once uncounted, then all of them `rounds` times: A B C A B C ..."""
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(rounds + 1):
        for name, job in jobs.items():
            seconds = job()
            if number:
                taken[name].append(seconds)
    return {name: Times(name, tuple(seconds)) for name, seconds in taken.items()}


def wall(argv: Sequence[str], env: Mapping[str, str] | None = None, cwd: str | None = None) -> float:
    """Wall seconds of a whole process that must exit 0."""
    began = time.perf_counter()
    done = subprocess.run(argv, env={**os.environ, **(env or {})}, cwd=cwd, capture_output=True, check=False)
    took = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(argv)}: exit status {done.returncode}\n{done.stderr.decode()}{done.stdout.decode()}"
        )
    return took


def cpu(argv: Sequence[str]) -> float:
    """CPU seconds (user and system) of a whole process that must exit 0."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall(argv)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
