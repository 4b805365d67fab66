"""python -m benchmarks [--rounds N] [--write FILE]: measures pccpipe and its peers on a VM of the test bed, in turn.

Needs root on Debian, like the tests. Prints a table of medians, of the ratios, and of what was aimed at.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import bare_engine, peers
from benchmarks.measure import Times, cpu, in_turn, wall
from tests.testbed import cleanup, images
from tests.testbed.place import STATE
from tests.testbed.vm import VM

ROOT = Path(__file__).resolve().parent.parent
COUNT = 20


@dataclass(frozen=True)
class Row:
    work: str
    measured: str
    aim: str
    met: bool


class Bench:
    """The pipelines and commands that are measured."""

    def __init__(self, vm: VM, folder: Path) -> None:
        self.vm = vm
        self.folder = folder
        self.numbers = itertools.count(1)
        self.program = str(Path(sys.executable).with_name("pccpipe"))
        self.project = folder / "project.yaml"
        self.project.write_text(
            f"id: bench\nisolation_mode: vm\nvm:\n  external_ip: {vm.host}\n  user: {vm.user}\n"
            f"  key_path: {vm.key}\n  known_hosts: {vm.known_hosts}\n"
        )
        (folder / "workspace").mkdir()

    def steps(self, on: str, count: int) -> Callable[[], float]:
        """A whole `pccpipe run` of so many steps of `true`."""
        extra = "container: box, " if on == "container" else ""
        path = self.folder / f"{on}-{count}.yaml"
        lines = [f'  - {{id: s{number}, on: {on}, {extra}run: "true"}}' for number in range(count)]
        head = 'version: 1\nname: bench\ncontainers: {box: {image: "bb:latest", network: none}}\nsteps:\n'
        path.write_text(head + "\n".join(lines) + "\n")

        def run() -> float:
            return wall(
                [
                    *(self.program, "run", str(path), "--run-id", f"bench{next(self.numbers)}"),
                    *("--project", str(self.project), "--workspace", str(self.folder / "workspace")),
                    *("--runs-dir", str(self.folder / "runs")),
                ]
            )

        return run


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds of each (default 7)")
    parser.add_argument("--write", type=Path, help="a Markdown file to write the table to")
    options = parser.parse_args(argv)
    cleanup.sweep()
    images.ensure()
    with VM.up() as vm, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench = Bench(vm, folder)
        rows = [
            *steps_on_the_vm(bench, peers.true_steps(peers.environment(STATE), vm, folder, COUNT), options.rounds),
            *one_more_step(bench, options.rounds),
            *one_more_container(bench, vm, options.rounds),
            *start_up(bench, options.rounds),
        ]
    table = as_table(rows)
    print(table)
    if options.write:
        options.write.write_text(table)
    return 0


def steps_on_the_vm(bench: Bench, others: dict[str, Callable[[], float]], rounds: int) -> list[Row]:
    times = in_turn({"pccpipe": bench.steps("vm", COUNT), **others}, rounds)
    ours = times["pccpipe"]
    rows = [Row(f"{COUNT} steps of `true` on the VM, whole process", f"{ours.median:.3f} s", "", True)]
    for name, most in (("Fabric", 1 / 2), ("Ansible raw", 1 / 3), ("pyinfra", 1.0)):
        ratio = paired(ours, times[name])
        text = f"{ratio:.2f} of its {times[name].median:.3f} s"
        rows.append(Row(f"the same, beside {name}", text, f"under {most:.2f}", ratio < most))
    return rows


def one_more_step(bench: Bench, rounds: int) -> list[Row]:
    rows = []
    for on in ("vm", "local"):
        times = in_turn({"few": bench.steps(on, COUNT), "many": bench.steps(on, 10 * COUNT)}, rounds)
        each = 1000 * (times["many"].median - times["few"].median) / (9 * COUNT)
        rows.append(Row(f"one more {on} step", f"{each:.2f} ms", "at most 5 ms", each <= 5))
    return rows


def one_more_container(bench: Bench, vm: VM, rounds: int) -> list[Row]:
    few, many = 2, 12
    jobs = {"few": bench.steps("container", few), "many": bench.steps("container", many)}
    with bare_engine.connection(vm) as engine:
        times = in_turn({**jobs, "bare": lambda: bare_engine.cycle(engine)}, rounds)
    each = (times["many"].median - times["few"].median) / (many - few)
    ratio = each / times["bare"].median
    text = f"{ratio:.2f} ({1000 * each:.0f} ms to {1000 * times['bare'].median:.0f} ms)"
    return [Row("one more container step, to bare create+start+wait+remove", text, "at most 1.25", ratio <= 1.25)]


def start_up(bench: Bench, rounds: int) -> list[Row]:
    default = str(ROOT / "pipelines/default-run.yaml")
    rows = []
    for words in (["--version"], ["validate", default]):
        median = statistics.median(cpu([bench.program, *words]) for _ in range(rounds))
        name = " ".join(word.removeprefix(f"{ROOT}/") for word in words)
        rows.append(Row(f"`pccpipe {name}`, CPU", f"{median:.3f} s", "under 0.25 s", median < 0.25))
    return rows


def paired(ours: Times, others: Times) -> float:
    """The median of the ratios, round by round."""
    return statistics.median(a / b for a, b in zip(ours.seconds, others.seconds, strict=True))


def as_table(rows: list[Row]) -> str:
    lines = ["| work | measured | aim | met |", "| --- | --- | --- | --- |"]
    lines += [f"| {row.work} | {row.measured} | {row.aim} | {'yes' if row.met else 'no'} |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
