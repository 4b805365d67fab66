"""python -m benchmarks.record RUNS_DIR COUNT: writes the record of a run `large` with COUNT steps."""

from __future__ import annotations

import sys
from pathlib import Path

from pccpipe.outcome import IsolationMode, Outcome, Place
from pccpipe.record.events import CommandEnded, CommandStarted, RunEnded, RunStarted, StepEnded, StepStarted
from pccpipe.record.journal import Journal
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


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
