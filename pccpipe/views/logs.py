"""Prints the logs of a run's commands, as they grow."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import TextIO

from pccpipe.errors import UsageError
from pccpipe.record.activity import activity_name
from pccpipe.record.agent_events import Activity
from pccpipe.record.state import RunState
from pccpipe.record.step_path import split
from pccpipe.record.tail import GrowingFile, GrowingJournal
from pccpipe.spec.problem import did_you_mean
from pccpipe.views.activity import activity_text
from pccpipe.views.text import clock, harmless
from pccpipe.views.words import is_within


class LogStreams(Enum):
    """Name the streams whose logs are printed."""

    BOTH = ("stdout", "stderr")
    STDOUT = ("stdout",)
    STDERR = ("stderr",)


class LogPrinter:
    """Prints new output, with a heading whenever the log changes.

    Args:
        step: the path or id of a step or a group; None for all steps.
    """

    def __init__(self, record: Path, step: str | None, streams: LogStreams) -> None:
        self._record = record
        self._step = step
        self._streams = streams
        self._has_headings = step is None
        self._logs: dict[str, GrowingFile] = {}
        self._current = ""

    def show(self, state: RunState, *, is_last: bool) -> None:
        """Print the output since the last call.

        Raises UsageError in the last call (`is_last`) if the run has no such step.
        """
        paths = steps_of(state, self._step, is_last=is_last)
        logs = list(self._names(state, paths))
        self._has_headings = self._has_headings or len(logs) > len(self._streams.value)
        for heading, stream, name in logs:
            # One stream alone goes to stdout.
            out = sys.stderr if stream == "stderr" and self._streams is LogStreams.BOTH else sys.stdout
            log = self._logs.setdefault(name, GrowingFile(self._record / name))
            while data := log.read():
                self._write(out, heading, name, data)

    def close(self) -> None:
        """Say so if nothing was printed, which else looks like an error."""
        if not self._current:
            to = "" if self._streams is LogStreams.BOTH else f" to {self._streams.value[0]}"
            print(f"pccpipe: {self._step or 'the run'} wrote nothing{to}", file=sys.stderr)

    def _names(self, state: RunState, paths: list[str]) -> Iterator[tuple[str, str, str]]:
        for path in paths:
            for service in state.steps[path].services.values():
                names = (service.started.stdout, service.started.stderr)
                for stream, name in zip(("stdout", "stderr"), names, strict=True):
                    if stream in self._streams.value:
                        yield f"{path}, service {service.started.service}, {stream}", stream, name
            for attempt in state.steps[path].attempts:
                for stream, name in zip(itertools.cycle(("stdout", "stderr")), attempt.logs, strict=False):
                    if stream in self._streams.value:
                        yield f"{path}, attempt {attempt.number}, {stream}", stream, name

    def _write(self, out: TextIO, heading: str, name: str, data: bytes) -> None:
        if name != self._current:
            if self._has_headings:
                out.buffer.write(f"{chr(10) if self._current else ''}==> {heading} <==\n".encode())
            self._current = name
        out.buffer.write(_for_terminal(data) if out.isatty() else data)
        out.buffer.flush()


class AgentLogPrinter:
    """Prints the actions of steps' agents, a line each, with a heading for each of several attempts.

    `step` as for `LogPrinter`.
    """

    def __init__(self, record: Path, step: str | None) -> None:
        self._record = record
        self._step = step
        self._files: dict[str, GrowingJournal] = {}
        self._current = ""

    def show(self, state: RunState, *, is_last: bool) -> None:
        """Print the actions since the last call. Raises UsageError in the last call if the run has no such step."""
        attempts = [
            (path, attempt.number, command)
            for path in steps_of(state, self._step, is_last=is_last)
            for attempt in state.steps[path].attempts
            for command in attempt.commands
            if command.agent
        ]
        for path, number, started in attempts:
            name = activity_name(started.stdout)
            for event in self._files.setdefault(name, GrowingJournal(self._record, name)).read():
                if isinstance(event.what, Activity) and (text := activity_text(event.what)):
                    if name != self._current and len(attempts) > 1:
                        print(f"{chr(10) if self._current else ''}==> {path}, attempt {number}, {started.agent} <==")
                    self._current = name
                    print(f"{clock(event.time)} {text}".encode("utf-8", "replace").decode(), flush=True)

    def close(self) -> None:
        """Say so if nothing was printed."""
        if not self._current:
            print(f"pccpipe: no agent of {self._step or 'the run'} did anything", file=sys.stderr)


def steps_of(state: RunState, step: str | None, *, is_last: bool) -> list[str]:
    """Return the paths of the steps with this path or id. Raises UsageError if `is_last` and there is none."""
    found = _steps(state, step)
    if is_last and step is not None and not found:
        known = [*state.steps, *(_id(path) for path in state.steps)]
        raise UsageError(f"run {state.run_id} has no step {step!r}", did_you_mean(step, known))
    return found


def _steps(state: RunState, step: str | None) -> list[str]:
    """Return the paths of the steps with this path or id, with the steps inside of groups; of None, all paths."""
    named = [path for path in state.steps if step in {path, _id(path)}]
    return [path for path in state.steps if step is None or any(is_within(path, group) for group in named)]


def _id(path: str) -> str:
    """Return the path's last part as `pccpipe show` names it: `build`, `unit[v=1.5]`."""
    parts = split(path)
    return "".join(parts[-2:]) if parts[-1].startswith("[") else parts[-1]


def _for_terminal(data: bytes) -> bytes:
    return harmless(data.decode("utf-8", "replace").replace("\r\n", "\n")).encode("utf-8", "replace")
