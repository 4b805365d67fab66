"""The library for asyncio: results, events, cancels, listeners that are slow."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from pathlib import Path
from typing import get_type_hints

import pytest

import pccpipe
from pccpipe import aio, api

HEAD = "version: 1\nname: x\nsteps:\n"


def pipeline(steps: str) -> pccpipe.Pipeline:
    return pccpipe.load(HEAD + steps)


HELLO = "  - {id: a, on: local, run: echo hello}\n"
SLEEPS = "  - {id: a, on: local, run: sleep 60}\nalways:\n  - {id: z, on: local, run: echo cleaned}\n"


def test_a_run_is_awaited(tmp_path: Path) -> None:
    async def work() -> pccpipe.RunResult:
        return await aio.run(pipeline(HELLO), run_id="r1", runs_dir=tmp_path, workspace=tmp_path)

    result = asyncio.run(work())
    assert (result.run_id, result.outcome) == ("r1", pccpipe.Outcome.SUCCEEDED)


def test_each_listener_gets_all_events_in_order(tmp_path: Path) -> None:
    async def listen(run: pccpipe.RunHandle) -> list[int]:
        return [each.seq for each in [event async for event in run.events()] if isinstance(each, pccpipe.Event)]

    async def work() -> list[list[int]]:
        run = aio.start(pipeline(HELLO), run_id="r1", runs_dir=tmp_path, workspace=tmp_path)
        listeners = [asyncio.ensure_future(listen(run)) for _ in range(3)]
        await run.result()
        assert [event async for event in run.events()] == []  # it is over
        return list(await asyncio.gather(*listeners))

    first, *others = asyncio.run(work())
    recorded = [event.seq for event in pccpipe.read_events("r1", runs_dir=tmp_path)]
    assert [seq for seq in first if seq] == recorded
    assert others == [first, first]


def test_cancelling_the_task_cancels_the_run_and_waits_for_its_end(tmp_path: Path) -> None:
    async def work() -> None:
        run = aio.start(pipeline(SLEEPS), run_id="r1", runs_dir=tmp_path, workspace=tmp_path)
        task = asyncio.ensure_future(run.result())
        async for event in run.events():
            if isinstance(event, pccpipe.Event) and isinstance(event.what, pccpipe.CommandStarted):
                task.cancel()
                break
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(work())
    state = pccpipe.get_run("r1", runs_dir=tmp_path)
    assert state.outcome is pccpipe.Outcome.CANCELLED
    assert state.steps["z"].outcome is pccpipe.Outcome.SUCCEEDED


def test_what_run_raises_comes_out_of_the_await(tmp_path: Path) -> None:
    async def work() -> None:
        with pytest.raises(pccpipe.UsageError, match="run id"):
            await aio.run(pipeline(HELLO), run_id="a b", runs_dir=tmp_path)

    asyncio.run(work())


def test_a_listener_that_is_slow_holds_up_no_run_and_learns_what_it_missed(tmp_path: Path) -> None:
    steps = "".join(f"  - {{id: s{number}, on: local, run: 'true'}}\n" for number in range(20))

    async def work() -> list[pccpipe.Event | pccpipe.Gap]:
        run = aio.start(pipeline(steps), run_id="r1", runs_dir=tmp_path, workspace=tmp_path)
        seen: list[pccpipe.Event | pccpipe.Gap] = []
        async for event in run.events(queue=5):
            seen.append(event)
            if len(seen) == 1:
                await run.result()  # the listener reads no further until the run is over
        return seen

    seen = asyncio.run(work())
    gap = seen[-1]
    assert isinstance(gap, pccpipe.Gap)
    *before, last = (each for each in seen[:-1] if isinstance(each, pccpipe.Event))
    assert len(before) < 8
    assert gap.after == last.seq
    missed = list(pccpipe.read_events("r1", after=gap.after, runs_dir=tmp_path))
    assert missed
    assert gap.count >= len(missed)
    assert isinstance(missed[-1].what, pccpipe.RunEnded)


def test_many_runs_at_once_leave_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()

    async def work() -> list[pccpipe.RunResult]:
        runs = [
            aio.run(pipeline(HELLO), run_id=f"r{number}", runs_dir=tmp_path, workspace=tmp_path) for number in range(20)
        ]
        return list(await asyncio.gather(*runs))

    assert all(result.outcome is pccpipe.Outcome.SUCCEEDED for result in asyncio.run(work()))
    until = time.monotonic() + 20
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.05)
    assert threading.active_count() <= before


def test_follow_gives_what_another_process_records(tmp_path: Path) -> None:
    async def work() -> tuple[list[int], list[int]]:
        run = aio.start(pipeline(HELLO), run_id="r1", runs_dir=tmp_path, workspace=tmp_path)
        async for _ in run.events():
            break  # the record is there
        followed = [event.seq async for event in aio.follow("r1", runs_dir=tmp_path)]
        await run.result()
        return followed, [event.seq async for event in aio.follow("r1", after=followed[2], runs_dir=tmp_path)]

    followed, rest = asyncio.run(work())
    assert followed == [event.seq for event in pccpipe.read_events("r1", runs_dir=tmp_path)]
    assert rest == followed[3:]


@pytest.mark.parametrize(("call", "options"), [(api.run, aio.BeginOptions), (api.resume, aio.RunOptions)])
def test_the_options_are_those_of_the_library(call: object, options: type) -> None:
    assert callable(call)
    own = {"pipeline", "run_id", "on_event", "cancel"}
    assert inspect.signature(call).parameters.keys() - own == get_type_hints(options).keys()


def test_a_cancel_is_the_handles_own(tmp_path: Path) -> None:
    async def work() -> pccpipe.RunResult:
        run = aio.start(pipeline(SLEEPS), run_id="r1", runs_dir=tmp_path, workspace=tmp_path)
        async for event in run.events():
            if isinstance(event, pccpipe.Event) and isinstance(event.what, pccpipe.CommandStarted):
                run.cancel()
                break
        return await run.result()

    result = asyncio.run(work())
    assert (result.outcome, result.state.cancelled_by) == (pccpipe.Outcome.CANCELLED, "caller")
