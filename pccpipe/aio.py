"""The library for asyncio: the calls of `pccpipe.run` and `resume` as coroutines, with their events.

    run = pccpipe.aio.start(pipeline, run_id="r1", project=project)
    async for event in run.events():
        ...
    result = await run.result()

Each run has a thread of its own, so any number of runs takes no place in asyncio's pool of threads. A listener that is
slow, or gone, holds up no run: what does not fit in its queue is left out, and a `Gap` says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from pathlib import Path
from typing import TypedDict, Unpack

from msgspec import Struct

from pccpipe import api
from pccpipe.api import Fallback
from pccpipe.cancel import Cancel
from pccpipe.policy.policy import Policy
from pccpipe.record.events import Event
from pccpipe.record.reading import PAUSE, Follower
from pccpipe.records import record_of
from pccpipe.session.result import RunResult
from pccpipe.spec.model import Pipeline
from pccpipe.spec.project_model import Project
from pccpipe.values import Json

QUEUE = 1000
"""Events that wait for a listener; more are left out."""


class Gap(Struct, frozen=True):
    """Events that a slow listener missed. `pccpipe.read_events(run_id, after=gap.after)` reads those with a number.

    Attributes:
        after: the number of the last event before it, 0 if there was none.
        count: how many events are left out, pieces of output included, which are in the logs.
    """

    after: int
    count: int


class RunHandle:
    """A run on its way. Made by `start` and `start_resume`; belongs to the event loop that made it."""

    def __init__(self, run: Callable[[Callable[[Event], None], Cancel], RunResult], name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._result: asyncio.Future[RunResult] = self._loop.create_future()
        # Without this a run whose result nobody awaits would log its error a second time, when it is collected.
        self._result.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._cancel = Cancel()
        self._queues: set[_Queue] = set()
        self._lock = threading.Lock()
        thread = threading.Thread(target=self._run, args=(run,), name=f"pccpipe-{name}", daemon=True)
        # Not before the caller awaits something: a listener that begins at once gets the first event too.
        self._loop.call_soon(thread.start)

    def cancel(self) -> None:
        """Ask the run to end, as Ctrl-C does; asked again, its grace is cut short. `always:` steps still run."""
        if self._cancel.requested:
            self._cancel.hurry()
        else:
            self._cancel.request("caller")

    async def result(self) -> RunResult:
        """Wait for the run's end. Raises what `pccpipe.run` raises.

        When the task that waits here is cancelled, the run is cancelled as well, and its end is awaited: its `always:`
        steps have run when CancelledError comes out. Cancelled again, the task leaves at once, and the run ends alone.
        """
        try:
            return await asyncio.shield(self._result)
        except asyncio.CancelledError:
            if self._result.done():
                raise
            self.cancel()
            with contextlib.suppress(Exception):
                await asyncio.shield(self._result)
            raise

    async def events(self, *, queue: int = QUEUE) -> AsyncGenerator[Event | Gap, None]:
        """Yield the run's events from now on, until its end. Any number of listeners may do so side by side.

        All of them, if nothing was awaited since `start`.

        Args:
            queue: how many events may wait for this listener.
        """
        own = _Queue(self._loop, queue)
        with self._lock:
            self._queues.add(own)
        self._result.add_done_callback(lambda _: own.close())
        try:
            async for each in own.read():
                yield each
        finally:
            with self._lock:
                self._queues.discard(own)

    def _run(self, run: Callable[[Callable[[Event], None], Cancel], RunResult]) -> None:
        try:
            result = run(self._on_event, self._cancel)
        except BaseException as error:  # noqa: BLE001  it is raised where the result is awaited
            self._settle(functools.partial(self._result.set_exception, error))
        else:
            self._settle(functools.partial(self._result.set_result, result))

    def _settle(self, settle: Callable[[], None]) -> None:
        # A loop that was closed meanwhile has nobody who waits.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(settle)

    def _on_event(self, event: Event) -> None:
        with self._lock:
            queues = tuple(self._queues)
        for queue in queues:
            queue.put(event)


class _Queue:
    """The events that wait for one listener. `put` never waits."""

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int) -> None:
        self._loop = loop
        self._most = most
        self._waiting: deque[Event | Gap] = deque()
        self._lock = threading.Lock()
        self._came = asyncio.Event()
        self._is_woken = False
        self._is_over = False
        self._last = 0

    def put(self, event: Event) -> None:
        with self._lock:
            if len(self._waiting) < self._most:
                self._waiting.append(event)
                self._last = event.seq or self._last
            elif isinstance(gap := self._waiting[-1], Gap):
                self._waiting[-1] = Gap(gap.after, gap.count + 1)
            else:
                self._waiting.append(Gap(self._last, 1))
            if self._is_woken:
                return
            self._is_woken = True
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._came.set)

    def close(self) -> None:
        self._is_over = True
        self._came.set()

    async def read(self) -> AsyncIterator[Event | Gap]:
        while True:
            with self._lock:
                waiting, self._waiting = self._waiting, deque()
                self._is_woken = False
                self._came.clear()
            if self._is_over and not waiting:
                return
            for each in waiting:
                yield each
            if not self._is_over:
                await self._came.wait()


class RunOptions(TypedDict, total=False):
    """The keywords that `pccpipe.run` and `pccpipe.resume` have in common; their docstrings say what each is."""

    project: Project | None
    runs_dir: str | Path | None
    accept_fallback: Collection[str]
    accept_new_host_key: bool
    wait: float
    environ: Mapping[str, str]
    secrets: Mapping[str, str]
    upstreams: Mapping[str, str]
    policy: Policy


class BeginOptions(RunOptions, total=False):
    """The keywords of `pccpipe.run` alone."""

    workspace: str | Path | None
    inputs: Mapping[str, Json] | None
    fallback: Fallback


def start(pipeline: Pipeline, *, run_id: str, **options: Unpack[BeginOptions]) -> RunHandle:
    """Begin a run in a thread of its own, from a coroutine. Arguments are those of `pccpipe.run`."""
    return RunHandle(
        lambda on_event, cancel: api.run(pipeline, run_id=run_id, on_event=on_event, cancel=cancel, **options), run_id
    )


def start_resume(run_id: str, **options: Unpack[RunOptions]) -> RunHandle:
    """Resume a run in a thread of its own. Arguments are those of `pccpipe.resume`."""
    return RunHandle(lambda on_event, cancel: api.resume(run_id, on_event=on_event, cancel=cancel, **options), run_id)


async def run(pipeline: Pipeline, *, run_id: str, **options: Unpack[BeginOptions]) -> RunResult:
    """Run a pipeline to its end. Cancelling the task cancels the run; see `RunHandle.result`."""
    return await start(pipeline, run_id=run_id, **options).result()


async def resume(run_id: str, **options: Unpack[RunOptions]) -> RunResult:
    """Resume a run to its end. Cancelling the task cancels the run; see `RunHandle.result`."""
    return await start_resume(run_id, **options).result()


async def follow(run_id: str, *, after: int = 0, runs_dir: str | Path | None = None) -> AsyncGenerator[Event, None]:
    """Yield the events of a run of any process, as `pccpipe.follow` does. Raises UsageError if there is no such run."""
    follower = Follower(record_of(run_id, runs_dir=runs_dir), after)
    while True:
        for event in await asyncio.to_thread(follower.read):
            yield event
        if follower.is_over:
            return
        await asyncio.sleep(PAUSE)
