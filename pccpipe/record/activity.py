"""Keep the actions of an attempt's agent in a file beside its logs: a line of JSON for each, with its time."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from pccpipe import limits
from pccpipe.record.agent_events import Activity
from pccpipe.record.codec import UnreadableEventError, decode, encode
from pccpipe.record.events import Event
from pccpipe.record.room import Room

_LAST = 1000
"""Bytes for a last line, which says that more is not kept."""


def activity_name(stdout_name: str) -> str:
    """Return the path of the file, within the run's folder, from the path of the attempt's log of stdout."""
    return f"{stdout_name.removesuffix('stdout.log')}activity.jsonl"


class ActivityLog:
    """Appends to the file. Its size is bounded, and nothing depends on it: without space it ends early.

    Attributes:
        earlier: the actions that an earlier process wrote, in order. A reader that attaches comes to them again.
    """

    def __init__(self, path: Path, room: Room | None = None) -> None:
        self._room = room or Room(path.parent, wait=0.0)
        self._fd: int | None = None
        lines: list[bytes] = []
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            lines = _whole_lines(path)
            # A half line of a killed process.
            os.ftruncate(self._fd, sum(map(len, lines)))
        except OSError:
            self.close()
        self._size = sum(map(len, lines))
        self.earlier = tuple(event.what for event in _events(lines) if isinstance(event.what, Activity))

    def write(self, event: Event, *, is_last: bool = False) -> bool:
        """Write an action; return False if there is no room for it. `is_last` uses the last room. Raises RecordFull."""
        line = encode(event)
        if self._size + len(line) > limits.AGENT_ACTIVITY.most - (0 if is_last else _LAST):
            return False
        self._size += len(line)
        fd, left = self._fd, memoryview(line)
        try:
            while left and fd is not None:
                left = left[self._room.made(functools.partial(os.write, fd, left)) :]
        except OSError:
            self.close()
        return True

    def close(self) -> None:
        """Close the file; later actions are not kept."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _whole_lines(path: Path) -> list[bytes]:
    with path.open("rb") as file:
        data = file.read(limits.AGENT_ACTIVITY.most)
    return data[: data.rfind(b"\n") + 1].splitlines(keepends=True)


def _events(lines: list[bytes]) -> list[Event]:
    events = []
    for line in lines:
        try:
            events.append(decode(line))
        except UnreadableEventError:
            continue
    return events
