"""The runs of one project: it starts them, answers them, cancels them, and resumes those that a killed server left."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Mapping
from typing import TypedDict

import pccpipe
from examples.server.settings import ProjectSettings, Settings

LOG = logging.getLogger(__name__)
WAIT = 24 * 3600.0
"""Seconds that a run may wait for its turn: one run at a time has a VM."""


class _Options(TypedDict):
    project: pccpipe.Project
    runs_dir: str
    policy: pccpipe.Policy
    secrets: Mapping[str, str]
    environ: Mapping[str, str]
    wait: float


class ProjectRuns:
    """The runs of one project. Its methods belong to the event loop."""

    def __init__(self, name: str, settings: Settings) -> None:
        self._settings: ProjectSettings = settings.projects[name]
        self.token = self._settings.token
        self.runs_dir = str(settings.data / name / "runs")
        self._workspace = settings.data / name / "workspace"
        self._workspace.mkdir(parents=True, exist_ok=True)
        self._project = self._settings.project(name)
        self._policy = self._settings.policy()
        self._handles: dict[str, pccpipe.RunHandle] = {}
        self._watchers: set[asyncio.Task[None]] = set()

    async def start(self, text: str, inputs: Mapping[str, str]) -> str:
        """Start a run of a pipeline, and return its id once its record exists.

        Raises SpecError (PolicyRefused is one) with every problem, and UsageError for a wrong input.
        """
        # With a line break it is always a text, and never the name of a file of the server.
        pipeline = await asyncio.to_thread(pccpipe.load, text + "\n", root=self._workspace, policy=self._policy)
        run_id = uuid.uuid4().hex
        handle = pccpipe.aio.start(pipeline, run_id=run_id, workspace=self._workspace, inputs=inputs, **self._options())
        self._watch(run_id, handle)
        async with contextlib.aclosing(handle.events()) as events:
            async for _ in events:
                return run_id
        await handle.result()  # it ended without an event: this raises the reason
        return run_id

    async def cancel(self, run_id: str) -> None:
        """Cancel a run, also one that waits for a person. Raises UsageError if it has ended."""
        if handle := self._handles.get(run_id):
            handle.cancel()
            return
        cancel = pccpipe.Cancel()
        cancel.request("caller")
        await asyncio.to_thread(pccpipe.resume, run_id, cancel=cancel, **self._options())

    async def answer(self, run_id: str, values: Mapping[str, str]) -> pccpipe.RunState:
        """Answer a run's questions, and resume it if that was the last one. Raises UsageError."""
        state = await asyncio.to_thread(pccpipe.answer, run_id, values, project=self._project, runs_dir=self.runs_dir)
        if not state.open_questions:
            self._resume(run_id)
        return state

    async def resume_all(self) -> None:
        """Resume every run that has not ended, one after another: the oldest had the VM, and keeps it.

        A run that still waits for a person just waits on.
        """
        for entry in reversed(pccpipe.list_runs(runs_dir=self.runs_dir)):
            if entry.ended is None and entry.run_id not in self._handles:
                await self._resume(entry.run_id)

    def _resume(self, run_id: str) -> asyncio.Task[None]:
        return self._watch(run_id, pccpipe.aio.start_resume(run_id, **self._options()))

    def _watch(self, run_id: str, handle: pccpipe.RunHandle) -> asyncio.Task[None]:
        self._handles[run_id] = handle
        watcher = asyncio.create_task(self._until_end(run_id, handle))
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)
        return watcher

    async def _until_end(self, run_id: str, handle: pccpipe.RunHandle) -> None:
        # A server that stops cancels this task, and no run: the next server resumes them.
        async for _ in handle.events(queue=1):
            pass
        if self._handles.get(run_id) is handle:
            del self._handles[run_id]
        try:
            result = await handle.result()
            LOG.info("run %s: %s", run_id, result.status)
        except pccpipe.PccpipeError as error:
            LOG.warning("run %s: %s", run_id, error)

    def _options(self) -> _Options:
        return {
            "project": self._project,
            "runs_dir": self.runs_dir,
            "policy": self._policy,
            "secrets": self._settings.values(),
            "environ": {},
            "wait": WAIT,
        }
