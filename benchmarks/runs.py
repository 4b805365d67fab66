"""python -m benchmarks.runs COUNT: starts COUNT runs at once in one process, each with 20 steps on its project's VM.

One run at a time has a VM, so the four VMs' runs wait for each other, and a waiting run costs memory and threads.
Prints the cost of one more run: megabytes, threads, and its CPU compared with runs one by one.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pccpipe
from benchmarks.bench import Bench, own_program
from tests.testbed.vm import VM

VMS = 4
ONE_BY_ONE = 6


def main(count: int) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        projects = []
        for number in range(VMS):
            vm = stack.enter_context(VM.up(images=False))
            home = folder / str(number)
            home.mkdir()
            pipeline = pccpipe.load(Bench(vm, home, own_program()).steps("vm", 20))
            projects.append(pccpipe.load_project(home / "project.yaml"))

        def run(number: int) -> None:
            done = pccpipe.run(
                pipeline,
                run_id=f"r{number}",
                project=projects[number % VMS],
                workspace=folder,
                runs_dir=folder / "runs",
                wait=600,
            )
            assert done.outcome is pccpipe.Outcome.SUCCEEDED, done.message

        run(0)
        began = time.process_time()
        for number in range(1, 1 + ONE_BY_ONE):
            run(number)
        alone = (time.process_time() - began) / ONE_BY_ONE
        memory, threads, began = _memory(), threading.active_count(), time.process_time()
        most = 0
        with ThreadPoolExecutor(count) as pool:
            runs = [pool.submit(run, 100 + number) for number in range(count)]
            while not all(each.done() for each in runs):
                most = max(most, threading.active_count() - count)
                time.sleep(0.02)
            for each in runs:
                each.result()
        together = (time.process_time() - began) / count
    print((_memory() - memory) / (count - 1) / 1e6, (most - threads) / (count - 1) + 1, together / alone)


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


if __name__ == "__main__":
    main(int(sys.argv[1]))
