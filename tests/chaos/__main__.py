"""python -m tests.chaos [--seeds N] [--from M] [--jobs J]: plays seeds and prints the rules that each one broke.

Exit status: 0 if every rule held. It keeps the record and the output of a seed that broke one.
"""

from __future__ import annotations

import argparse
import queue
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.chaos.faults import plan
from tests.chaos.invariants import violations
from tests.chaos.play import Player
from tests.testbed import cleanup, images
from tests.testbed.vm import VM


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many (default 100)")
    parser.add_argument("--from", type=int, default=1, dest="first", help="the first one (default 1)")
    parser.add_argument("--jobs", type=int, default=1, help="VMs at a time (default 1)")
    options = parser.parse_args()
    cleanup.sweep()
    images.ensure()
    seeds: queue.SimpleQueue[int] = queue.SimpleQueue()
    for seed in range(options.first, options.first + options.seeds):
        seeds.put(seed)
    broken: list[int] = []
    kept = Path(tempfile.mkdtemp(prefix="chaos-"))
    workers = [threading.Thread(target=_play_all, args=(seeds, broken, kept)) for _ in range(options.jobs)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(f"{options.seeds} seeds, {len(broken)} broke a rule{f': {sorted(broken)}; see {kept}' if broken else ''}")
    return 1 if broken else 0


def _play_all(seeds: queue.SimpleQueue[int], broken: list[int], kept: Path) -> None:
    with VM.up() as vm:
        while not seeds.empty():
            seed = seeds.get()
            folder = kept / str(seed)
            folder.mkdir()
            began = time.monotonic()
            player = Player(vm, plan(seed), folder)
            try:
                found = violations(player.play(), vm)
            except Exception as error:  # noqa: BLE001 - a finding, whatever it is
                found = [f"{type(error).__name__}: {error}"]
            (folder / "output.txt").write_text("\n".join([*player.output, *found]))
            print(f"seed {seed}: {time.monotonic() - began:.1f} s: {'; '.join(found) or 'ok'}", flush=True)
            if found:
                broken.append(seed)
            else:
                shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
