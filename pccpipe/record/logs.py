"""Writes a command's log: its masked stdout and stderr, byte for byte, in two files of limited size.

Beyond `log_limit`, a log keeps the beginning and the end of the output; a line between them counts the rest.
"""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from types import TracebackType

from pccpipe.layout import WITHOUT_LOGS
from pccpipe.limits import LOG, RUN_LOGS
from pccpipe.outcome import Stream
from pccpipe.record.files import sync
from pccpipe.record.ring import Ring
from pccpipe.record.room import Room

LEAST_LOG = 1 << 20
"""Bytes for a command's log in a run whose logs have used up their quota."""


class LogQuota:
    """The bytes that a run's logs may still use together. Safe from many threads.

    Args:
        most: bytes of all logs.
    """

    def __init__(self, most: int = RUN_LOGS.most) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._used: int | None = None

    def reserve(self, run_dir: Path, wanted: int) -> int:
        """Return the bytes that a log may use; they are reserved until `settle`."""
        with self._lock:
            if self._used is None:
                # The logs of an earlier process of the run.
                folders = [one for one in run_dir.iterdir() if one.is_dir() and one.name not in WITHOUT_LOGS]
                logs = (log for folder in folders for log in folder.rglob("*.log"))
                self._used = sum(log.stat().st_size for log in logs if log.is_file())
            granted = max(min(wanted, LEAST_LOG), min(wanted, self.most - self._used))
            self._used += granted
            return granted

    def settle(self, log: CommandLog) -> None:
        """Return the unused bytes of a closed log to the quota."""
        sizes = (path.stat().st_size for path in (log.stdout_path, log.stderr_path) if path.exists())
        with self._lock:
            self._used = (self._used or 0) - log.limit + sum(sizes)


class CommandLog:
    """Appends to a command's two log files, without a buffer: a reader sees each write at once.

    Use `create`; `stdout_name` and `stderr_name` are paths within the run's folder. `from_start` empties the files: the
    command's output comes from its first byte again.

    Args:
        limit: bytes of both files together: half for the beginning, half for the end. Each stream may have half of
            the end, so that a flood on one does not push out the end of the other.
        room: waits for room on a full disk.
    """

    def __init__(
        self,
        run_dir: Path,
        stdout_name: str,
        stderr_name: str,
        *,
        from_start: bool = False,
        limit: int = LOG.most,
        room: Room | None = None,
    ) -> None:
        room = room or Room(run_dir, wait=0.0)
        self.stdout_name = stdout_name
        self.stderr_name = stderr_name
        self.stdout_path = run_dir / stdout_name
        self.stderr_path = run_dir / stderr_name
        self.stdout_path.parent.mkdir(parents=True, exist_ok=True)
        self.limit = limit
        self.beginning = limit // 2
        """Bytes that are kept of the beginning, of both streams together."""
        self.ending = limit // 2
        """Bytes that are kept of the end of a stream, if the other one has none."""
        self._room = self.beginning
        # Beyond the beginning, repeated output may have a gap already, and half a secret at its edge.
        self._to_show = self.beginning if from_start else limit
        self.failure = ""
        """The reason why output could not be written; later output is only counted."""
        self.is_cut_shown = False
        """True once the views said that they show no more."""
        self._logs = {
            stream: _StreamLog(path, self.ending, room, from_start=from_start)
            for stream, path in ((Stream.STDOUT, self.stdout_path), (Stream.STDERR, self.stderr_path))
        }

    @staticmethod
    def create(
        run_dir: Path, folder: Path, command_id: str, *, short: bool, limit: int = LOG.most, room: Room | None = None
    ) -> CommandLog:
        """Create a command's log in `folder` of the run: `stdout.log` and `stderr.log` if `short` and not taken yet."""
        prefix = "" if short and not (run_dir / folder / "stdout.log").exists() else f"{command_id}."
        names = (str(folder / f"{prefix}{stream}.log") for stream in ("stdout", "stderr"))
        return CommandLog(run_dir, *names, limit=limit, room=room)

    @property
    def is_full(self) -> bool:
        """True if the beginning has all its bytes: of later output only the end is kept."""
        return not self._room

    @property
    def dropped(self) -> int:
        """The number of bytes that are left out so far."""
        return sum(log.dropped for log in self._logs.values())

    def write(self, stream: Stream, data: bytes) -> int:
        """Keep output; return how many of its first bytes a view may show. Raises RecordFull."""
        if self.failure:
            self.skip(stream, len(data))
            return 0
        try:
            self._write(self._logs[stream], data)
        except OSError as error:
            self.failure = error.strerror or str(error)
        shown = min(len(data), self._to_show)
        self._to_show -= shown
        return shown

    def _write(self, log: _StreamLog, data: bytes) -> None:
        first = min(len(data), self._room)
        self._room -= first
        if first:
            log.begin(data if first == len(data) else data[:first])
        if first < len(data):
            log.end(data[first:])

    def skip(self, stream: Stream, count: int, *, more: bool = False) -> None:
        """Count output that was skipped. It ends the beginning; output before it is part of the middle.

        With `more`, an unknown number of bytes beyond `count` was skipped.
        """
        self._room = self._to_show = 0
        self._logs[stream].skip(count, more=more)

    def close(self) -> None:
        """Write the log to the disk: the target's copy is discarded after that. Raises RecordFull."""
        out, err = self._logs.values()
        half = self.ending // 2
        err.keep(max(half, self.ending - out.at_end))
        out.keep(max(half, self.ending - err.at_end))
        for log in self._logs.values():
            try:
                log.close()
            except OSError as error:
                self.failure = self.failure or error.strerror or str(error)

    def __enter__(self) -> CommandLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _StreamLog:
    """One stream's file, and a ring with its end until the stream is over."""

    def __init__(self, path: Path, ending: int, room: Room, *, from_start: bool) -> None:
        self._room = room
        self._file = path.open("wb" if from_start else "ab", buffering=0)
        self._ring_path = path.with_name(f"{path.name}.end")
        self._ring_path.unlink(missing_ok=True)
        self._ending = ending
        self._ring: Ring | None = None
        self._skipped = 0
        self._skipped_more = False
        self._skipped_lines: int | None = 0
        self._last = b"\n"
        self._is_touched = False

    @property
    def dropped(self) -> int:
        return self._skipped + (self._ring.dropped if self._ring else 0)

    @property
    def at_end(self) -> int:
        """The number of bytes that are kept of the end."""
        return self._ring.total - self._ring.dropped if self._ring else 0

    def keep(self, most: int) -> None:
        if self._ring:
            self._ring.keep(most)

    def begin(self, data: bytes) -> None:
        self._last = data[-1:]
        self._append(data)

    def end(self, data: bytes) -> None:
        self._ring = self._ring or Ring(self._ring_path, self._ending, self._room)
        self._ring.write(data)

    def skip(self, count: int, *, more: bool) -> None:
        self._skipped_more = self._skipped_more or more
        self._skipped_lines = None
        self._skipped += count
        if self._ring:
            self._skipped += self._ring.total
            self._ring.clear()

    def close(self) -> None:
        ring, left_out = self._ring, self.dropped
        try:
            if left_out or self._skipped_more:
                self._append(self._left_out().encode())
            if ring:
                for piece in ring.kept():
                    self._append(piece)
            if self._is_touched:
                self._room.made(lambda: sync(self._file.fileno()))
        finally:
            self._ring, self._skipped = None, left_out
            self._file.close()
            if ring:
                ring.close()

    def _left_out(self) -> str:
        lines = ""
        if self._skipped_lines is not None and self._ring:
            lines = f" ({self._ring.dropped_lines:,} lines)"
        start = "" if self._last == b"\n" else "\n"
        more = "more than " if self._skipped_more else ""
        return f"{start}... {more}{self.dropped:,} bytes{lines} left out here by log_limit ...\n"

    def _append(self, data: bytes) -> None:
        self._is_touched = True
        left = memoryview(data)
        while left:
            left = left[self._room.made(functools.partial(self._file.write, left)) :]


def tail(path: Path, most: int) -> str:
    """Return a log's last `most` bytes as text, from the start of a line if there is one; empty without a file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - most))
            data = file.read(most)
    except FileNotFoundError:
        return ""
    if size > most:
        _, newline, rest = data.partition(b"\n")
        data = rest if newline and rest else data
    return data.decode("utf-8", "replace")
