"""python -m benchmarks.compare A B [--rounds N]: runs the same work with two commits, in turn, on one VM.

Checks each commit out into a separate folder, with its own environment. Prints the ratio of B's time to A's, round by
round: under 1, B is faster. A figure of CPU is valid on a busy machine, too.
"""

from __future__ import annotations

import argparse
import operator
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.bench import SECRETS, Bench
from benchmarks.measure import Times, Usage, run
from benchmarks.rows import COUNT, MANY, ROOT
from tests.testbed import cleanup, images
from tests.testbed.vm import VM


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("commits", nargs=2, metavar="COMMIT")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(argv)
    cleanup.sweep()
    images.ensure()
    with tempfile.TemporaryDirectory() as name, VM.up() as vm:
        folder = Path(name)
        try:
            benches = [
                Bench(vm, _made(folder / side / "work"), _installed(commit, folder / side / "code"))
                for side, commit in zip("ab", options.commits, strict=True)
            ]
            head = ["work", *options.commits, "wall: B to A", "CPU: B to A"]
            print(f"| {' | '.join(head)} |\n{'| --- ' * len(head)}|")
            for work, job in _jobs().items():
                print(_line(work, [job(bench) for bench in benches], options.rounds), flush=True)
        finally:
            subprocess.run(["git", "worktree", "prune"], cwd=ROOT, check=True)
    return 0


def _jobs() -> Mapping[str, Callable[[Bench], Callable[[], Usage]]]:
    """Return the work by name: a function that makes a repeatable job for a bench."""
    return {
        "`--version`": lambda bench: lambda: run([bench.program, "--version"]),
        "`validate` of the default pipeline": lambda bench: _validate(bench, _default(bench)),
        "`validate` of 5,000 steps": lambda bench: _validate(bench, bench.steps("vm", 5000)),
        f"{COUNT} vm steps": lambda bench: _run(bench, bench.steps("vm", COUNT)),
        f"{MANY} vm steps": lambda bench: _run(bench, bench.steps("vm", MANY)),
        f"{MANY} local steps": lambda bench: _run(bench, bench.steps("local", MANY)),
        "200 MB from the VM, masked": lambda bench: _run(bench, bench.output("vm", 200, list(SECRETS))),
    }


def _default(bench: Bench) -> Path:
    """Return the commit's own default pipeline: an older commit may not understand a newer one's."""
    return Path(bench.program).parents[2] / "pipelines/default-run.yaml"


def _validate(bench: Bench, pipeline: Path) -> Callable[[], Usage]:
    return lambda: run([bench.program, "validate", str(pipeline)])


def _run(bench: Bench, pipeline: Path) -> Callable[[], Usage]:
    return lambda: bench.run(pipeline)


def _line(work: str, jobs: Sequence[Callable[[], Usage]], rounds: int) -> str:
    """Measure A and B in turn, after one round that does not count."""
    taken = [[job() for job in jobs] for _ in range(rounds + 1)][1:]
    cells: list[str] = []
    ratios: list[str] = []
    for measure in (operator.attrgetter("wall"), operator.attrgetter("cpu")):
        a, b = (Times(name, tuple(measure(usages[side]) for usages in taken)) for side, name in enumerate("AB"))
        cells = cells or [f"{times.median:.3f} s" for times in (a, b)]
        ratios.append(f"{b.ratio_to(a):.2f}")
    return f"| {work} | {' | '.join([*cells, *ratios])} |"


def _installed(commit: str, folder: Path) -> str:
    """Install a commit into a separate environment, and return its `pccpipe`."""
    subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(folder), commit], cwd=ROOT, check=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder / ".venv")], check=True)
    python = str(folder / ".venv/bin/python")
    subprocess.run([python, "-m", "pip", "install", "-qq", "--editable", str(folder)], check=True)
    subprocess.run([python, "-m", "compileall", "-q", str(folder / "pccpipe")], check=True)
    return str(folder / ".venv/bin/pccpipe")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
