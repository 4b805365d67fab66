"""A process that runs many pipelines has no more resources open after each of them."""

from __future__ import annotations

import contextlib
import gc
import threading
from pathlib import Path

import pccpipe
from pccpipe.docker_api.engine import DockerEngine
from pccpipe.ssh.connection import Connection
from tests.e2e.control import Control, wait_until
from tests.testbed.vm import VM

RUNS = 6
STEADY = 2
"""The number of runs after which a process has created all that it reuses."""
PIPELINE = """
version: 1
name: leftovers
containers: {box: {image: "bb:latest", network: none}}
steps:
  - {id: sync, upload: workspace}
  - {id: boxed, on: container, container: box, run: echo boxed}
  - {id: direct, on: vm, run: echo direct}
  - {id: here, on: local, run: echo here}
always:
  - {id: clean, remove: workspace}
"""
STAY = ("pccpipe-login", "pccpipe-ticker")
"""Names of threads that serve all runs of a process."""


def descriptors() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def threads() -> set[threading.Thread]:
    """Return the threads of runs under way."""
    return {
        thread
        for thread in threading.enumerate()
        if thread.name.startswith(("pccpipe", "lease")) and not thread.name.startswith(STAY)
    }


def alive(kind: type) -> int:
    """Return the objects of a class that are still referenced."""
    gc.collect()
    return sum(isinstance(known, kind) for known in gc.get_objects())


def children() -> list[str]:
    found: list[str] = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that ended meanwhile
            found += (task / "children").read_text().split()
    return found


def test_runs_leave_no_descriptor_thread_process_or_file_behind(vm: VM, tmp_path: Path) -> None:
    control = Control(tmp_path, vm)
    project = pccpipe.load_project(control.project_file())
    file = tmp_path / "leftovers.yaml"
    file.write_text(PIPELINE)
    pipeline, records = pccpipe.load(file), tmp_path / ".system" / "runs"
    before = children()
    # The killed runs of other tests may have left some in this process.
    others = threads()
    # The traceback of an earlier failed test may hold some.
    known = {kind: alive(kind) for kind in (DockerEngine, Connection)}
    seen: list[int] = []
    for number in range(RUNS):
        result = pccpipe.run(
            pipeline, run_id=f"r{number}", project=project, runs_dir=records, workspace=control.workspace
        )
        assert result.outcome is pccpipe.Outcome.SUCCEEDED, result.message
        wait_until(lambda: threads() <= others)
        seen.append(descriptors())
    assert seen[-1] <= seen[STEADY - 1], f"open descriptors after each run: {seen}"
    wait_until(lambda: set(children()) <= set(before))
    # The last run may still be closing some.
    wait_until(lambda: all(alive(kind) <= count + 1 for kind, count in known.items()))
    left = [sorted(path.name for path in (records / f"r{number}").iterdir()) for number in range(RUNS)]
    assert left == [left[0]] * RUNS
    states = [path.name for path in (tmp_path / ".system" / "run-state").glob("*")]
    assert [name for name in states if not name.startswith(".")] == []
