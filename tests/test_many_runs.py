"""Hundreds of runs from asyncio in one process: its memory, descriptors and threads stay as they were."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNS = 200
MOST = 8 << 20
"""Bytes that 160 runs may leave in memory, 50 kB each: a run that is kept takes more."""
SCRIPT = f"""
import asyncio, gc, json, os, sys, threading
import pccpipe

TEXT = "version: 1\\nname: x\\nsteps:\\n  - {{id: a, on: local, run: 'seq 2000'}}\\n"
POLICY = pccpipe.Policy.untrusted(places=[pccpipe.Place.LOCAL])
HERE = sys.argv[1]

async def measured():
    # The threads that read an ended command's output take a moment to end.
    for _ in range(100):
        if threading.active_count() <= 2:
            break
        await asyncio.sleep(0.1)
    gc.collect()
    memory = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return [memory, len(os.listdir("/proc/self/fd")), threading.active_count()]

async def one(number, gate):
    async with gate:
        pipeline = pccpipe.load(TEXT, policy=POLICY)
        options = dict(project=pccpipe.local_project(), policy=POLICY, runs_dir=HERE, workspace=HERE, environ={{}})
        run = pccpipe.aio.start(pipeline, run_id=f"r{{number}}", **options)
        events = [event async for event in run.events()]
        result = await run.result()
        assert result.outcome is pccpipe.Outcome.SUCCEEDED, result
        recorded = [event.seq for event in pccpipe.read_events(f"r{{number}}", runs_dir=HERE)]
        assert [event.seq for event in events if event.seq] == recorded

async def main():
    gate = asyncio.Semaphore(8)
    found = []
    for first, last in ((0, 40), (40, {RUNS})):
        await asyncio.gather(*(one(number, gate) for number in range(first, last)))
        found.append(await measured())
    print(json.dumps(found))

asyncio.run(main())
"""


def test_two_hundred_runs_leave_nothing_in_the_process(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (memory, *others), (later, *later_others) = json.loads(done.stdout)
    assert later_others == others
    assert later - memory < MOST
    assert len(list(tmp_path.glob("r*/events.jsonl"))) == RUNS
