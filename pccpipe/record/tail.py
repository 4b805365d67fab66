"""Reads a journal and logs that still grow."""

from __future__ import annotations

from pathlib import Path

from pccpipe.layout import EVENTS
from pccpipe.record.codec import UnreadableEventError, decode
from pccpipe.record.events import Event

PIECE = 256 * 1024


class GrowingFile:
    """Reads the bytes that a file gained since the last read. A missing file is empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self, most: int = PIECE) -> bytes:
        """Return the next bytes, at most `most`; empty if there are no more now."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(most)
        except FileNotFoundError:
            return b""
        self._offset += len(data)
        return data


class GrowingJournal:
    """Reads the events since the last read, without unreadable ones. `name` is another file of events in the folder."""

    def __init__(self, run_dir: Path, name: str = EVENTS) -> None:
        self._file = GrowingFile(run_dir / name)
        self._rest = b""

    def read(self) -> list[Event]:
        """Return the new events, in order. A half line waits for its end."""
        events: list[Event] = []
        while data := self._file.read():
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                try:
                    events.append(decode(line))
                except UnreadableEventError:
                    continue
        return events
