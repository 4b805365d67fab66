"""python -m benchmarks.record RUNS_DIR COUNT [runs]: writes a run `large` with COUNT steps, or COUNT runs.

With `runs` it prints the seconds of lists of the runs: the first, which reads each journal, and the fastest of five.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from pccpipe.layout import EVENTS
from pccpipe.outcome import IsolationMode, Outcome, Place
from pccpipe.record.codec import encode
from pccpipe.record.events import CommandEnded, CommandStarted, Event, StepEnded, StepStarted
from pccpipe.record.index import list_runs
from pccpipe.record.journal import Journal
from pccpipe.record.run_events import RunEnded, RunStarted
from pccpipe.target import Isolation


def main(runs: Path, count: int) -> None:
    journal = Journal.create(runs / "large")
    had = Isolation(Place.LOCAL, "localhost", "1000:1000", workspace="/somewhere/workspace")
    journal.append(
        RunStarted("large", "bench", "bench.yaml", None, IsolationMode.LOCAL, {}, "/somewhere", (), "0", "here", 1)
    )
    for number in range(count):
        step, command = f"s{number}", f"s{number}-1"
        journal.append(StepStarted(step, "run", Place.LOCAL))
        journal.append(CommandStarted(step, 1, command, had, f"logs/{command}.out", f"logs/{command}.err"))
        journal.append(CommandEnded(step, 1, Outcome.SUCCEEDED, 0, seconds=0.01))
        journal.append(StepEnded(step, Outcome.SUCCEEDED, 0.01, 0))
    journal.append(RunEnded(Outcome.SUCCEEDED, "succeeded", False, 1.0))
    journal.close()


def many(runs: Path, count: int) -> None:
    for number in range(count):
        run_id = f"run-{number}"
        started = RunStarted(
            run_id, "bench", "bench.yaml", None, IsolationMode.LOCAL, {}, "/somewhere", (), "0", "here", 1
        )
        ended = RunEnded(Outcome.SUCCEEDED, "succeeded", False, 1.0)
        (runs / run_id).mkdir(parents=True)
        events = [Event(1, float(number), started), Event(2, float(number) + 1, ended)]
        (runs / run_id / EVENTS).write_bytes(b"".join(encode(event) for event in events))
    times = []
    for _ in range(6):
        began = time.perf_counter()
        assert len(list_runs(runs)) == count
        times.append(time.perf_counter() - began)
    print(times[0], min(times[1:]))


if __name__ == "__main__":
    (many if sys.argv[3:] == ["runs"] else main)(Path(sys.argv[1]), int(sys.argv[2]))
