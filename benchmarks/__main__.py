"""python -m benchmarks [ROW...] [--rounds N] [--short] [--write]: measures pccpipe and its peers on a VM, in turn.

Needs root on Debian, like the tests. Prints a table of medians, ratios and aims. A slow result fails nothing: the table
also reports the machine's load.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import Bench, own_program
from benchmarks.report import Bars, Row, as_chart, as_table
from benchmarks.rows import ROOT, ROWS, SHORT
from tests.testbed import cleanup, images
from tests.testbed.vm import VM

PAGE = ROOT / "docs/benchmarks.md"
CHART = ROOT / "docs/benchmarks.svg"
_BEGIN, _END = "<!-- figures -->", "<!-- end of figures -->"


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "rows", nargs="*", choices=[[], *ROWS], metavar="ROW", help=f"rows: {', '.join(ROWS)}; default: all"
    )
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds for each (default 5)")
    parser.add_argument("--short", action="store_true", help="the rows that need no peers, in under a minute")
    parser.add_argument("--write", action="store_true", help="write the table and the chart into docs/")
    options = parser.parse_args(argv)
    names, rounds = (SHORT, 2) if options.short else (options.rows or list(ROWS), options.rounds)
    cleanup.sweep()
    images.ensure()
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(ROOT / "pccpipe")], check=True)
    rows: list[Row] = []
    bars: list[Bars] = []
    with VM.up() as vm:
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                more_rows, more_bars = ROWS[name](Bench(vm, Path(folder), own_program()), rounds)
            print(as_table(more_rows), flush=True)
            rows += more_rows
            bars += more_bars
    table = f"{_machine()}\n\n{as_table(rows)}"
    print(table)
    if options.write:
        write(table, bars)
    return 0


def write(table: str, bars: Sequence[Bars]) -> None:
    """Put the figures between the page's marks, and the chart beside the page."""
    figures = table
    if bars:
        CHART.write_text(as_chart(bars))
        figures += f"\n![the same work by several programs]({CHART.name})\n"
    page = PAGE.read_text()
    PAGE.write_text(re.sub(f"{_BEGIN}.*{_END}", lambda _: f"{_BEGIN}\n{figures}{_END}", page, flags=re.DOTALL))


def _machine() -> str:
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    python = f"Python {platform.python_version()}"
    return f"{os.cpu_count()} cores, Linux {platform.release()}, {python}; load at the end {load}."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
