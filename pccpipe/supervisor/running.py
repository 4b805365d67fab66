"""Follows a command of this machine, and reads its output from its spools."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable

from pccpipe.detached.ended import TRUNCATED, signal_name
from pccpipe.errors import Lost, Nonsense, Unavailable
from pccpipe.limits import UNREAD_OUTPUT
from pccpipe.machine.answers import number
from pccpipe.machine.retry import DISCONNECTED
from pccpipe.outcome import Stream
from pccpipe.supervisor.files import HOST, Ended, Files
from pccpipe.supervisor.holes import punch
from pccpipe.supervisor.lines import Line
from pccpipe.target import Chunk, Exit, Isolation, Token

READ_SIZE = 256 << 10
MOST_WORDS = 1000
"""The most messages of the supervisor that it reads before it returns a piece of output."""
LOOK_EVERY = 1.0
"""Seconds between two checks of how far the spools of a flood are ahead of the reader."""
LEAST_AHEAD = 16 << 20
"""Bytes that a spool must be ahead, beyond the wanted end, before it skips the rest."""
RELEASE_EVERY = UNREAD_OUTPUT.most // 8
"""Bytes of a stream after which it tells the supervisor how far it has read."""

Follow = Callable[[str], "Line | None"]
"""Opens a line that follows a command; returns None if its supervisor is gone."""


class SupervisedRunning:
    """A `Running`. One thread reads; any may stop.

    Args:
        line: the line that follows the command; None if its supervisor is gone.
        follow: opens another line if this one breaks.
        release: gets the line back, or None, once the command no longer counts.
    """

    def __init__(
        self,
        files: Files,
        command_id: str,
        mark: str,
        isolation: Isolation,
        line: Line | None,
        follow: Follow,
        release: Callable[[Line | None], None],
    ) -> None:
        self._files = files
        self._id, self._mark = command_id, mark
        self._isolation = isolation
        self._line = line
        self._follow = follow
        self._release = release
        self._released = False
        self._spools: dict[Stream, int] = {}
        self._sizes = dict.fromkeys(Stream, 0)
        self._read = dict.fromkeys(Stream, 0)
        self._freed = dict.fromkeys(Stream, 0)
        self._released_to = dict.fromkeys(Stream, 0)
        self._ended: Ended | Lost | None = None
        self._pending: list[Chunk] = []
        self._exit: Exit | None = None
        self._stop_lock = threading.Lock()
        self._stop_by: float | None = None
        self._wanted: tuple[int, int] | None = None
        self._next_look = 0.0
        self._turn = Stream.STDOUT
        self._taken = 0
        """Bytes that it read since the last check."""
        if line is None:
            self._look_at_files()

    @property
    def token(self) -> Token:
        return {"id": self._id, "mark": self._mark}

    @property
    def isolation(self) -> Isolation:
        return self._isolation

    def read(self, timeout: float) -> Chunk | Exit | None:
        deadline = time.monotonic() + timeout
        while True:
            if self._wanted and time.monotonic() >= self._next_look:
                self._catch_up(*self._wanted)
            self._release_output()
            if self._pending:
                return self._pending.pop(0)
            if self._exit:
                return self._exit
            if self._ended and self._wanted and self._taken:
                # The last check of a flood.
                self._catch_up(*self._wanted)
                continue
            # It needs the newest sizes, so that it reads neither stream far ahead of the other. A flood sends a message
            # for each piece.
            for _ in range(MOST_WORDS):
                if self._ended or not self._hear(0.0):
                    break
            # It does not read a flood further between two checks, because it will skip most of it.
            if (not self._wanted or self._taken < LEAST_AHEAD) and (chunk := self._next_chunk()):
                self._taken += len(chunk.data)
                return chunk
            if self._ended:
                # The message of its end may have come just now, with much of a flood still unchecked.
                if not (self._wanted and self._taken):
                    self._finish(self._ended)
                continue
            now = time.monotonic()
            left = min(deadline, self._next_look) - now if self._wanted else deadline - now
            if not self._hear(max(0.0, left)) and now >= deadline:
                return None

    def may_skip(self, beginning: int, ending: int) -> None:
        self._wanted = (beginning, ending)

    def cpu_seconds(self) -> float | None:
        return None

    def stop(self, grace: float) -> None:
        with self._stop_lock:
            by = time.monotonic() + grace
            self._stop_by = min(by, self._stop_by or by)
            self._send_stop()

    def fetch(self, name: str, limit: int) -> bytes:
        return self._files.fetch(self._id, name, limit)

    def let_go(self) -> None:
        self._done(None)

    def discard(self) -> None:
        if self._exit:
            self._files.remove(self._id, self._mark)
            self._done(self._line)
            return
        # It may still be running, and ending it takes its files. The run's end removes them.
        if self._line and not self._ended:
            self.stop(0)
        else:
            self._files.end_orphan(self._id)
        self._done(None)

    def _done(self, line: Line | None) -> None:
        for spool in self._spools.values():
            os.close(spool)
        self._spools.clear()
        ours, self._line = self._line, None
        if ours and ours is not line:
            ours.close()
        if not self._released:
            self._released = True
            self._release(line)

    def _hear(self, timeout: float) -> bool:
        """Wait for a message on the command; return whether one came."""
        line = self._line
        try:
            fields = line.receive(timeout) if line else None
        except DISCONNECTED:
            self._regain()
            return True
        match fields:
            case None:
                return False
            case [b"state", out, err, said]:
                self._sizes = {Stream.STDOUT: number(HOST, "size", out), Stream.STDERR: number(HOST, "size", err)}
                if said != b"-":
                    self._ended = self._judged(lambda: Ended(said.decode(errors="replace")))
            case _:
                self._ended = Lost(Nonsense(HOST, "report on a command", fields).words)
        return True

    def _regain(self) -> None:
        """Follow the command on another line after the last one broke, or find out how it ended."""
        if self._line:
            self._line.close()
        with self._stop_lock:
            self._line = self._follow(self._id)
            self._released_to = dict.fromkeys(Stream, 0)
            if self._line and self._stop_by is not None:
                self._send_stop()
        if self._line is None:
            self._look_at_files()

    def _look_at_files(self) -> None:
        gone = Lost(f"{self._id} was running when {HOST} was restarted, or its supervisor was killed")
        self._ended = self._judged(lambda: self._files.ended(self._id) or gone)
        for stream in Stream:
            with contextlib.suppress(OSError):
                self._sizes[stream] = os.fstat(self._spool(stream)).st_size

    def _judged(self, judge: Callable[[], Ended | Lost]) -> Ended | Lost:
        try:
            return judge()
        except Nonsense as error:
            return Lost(error.words)
        except Lost as lost:
            return lost

    def _next_chunk(self) -> Chunk | None:
        # The streams take turns, so that a flood on one does not hold back the other.
        for stream in (self._turn, _other(self._turn)):
            at, size = self._read[stream], self._known_size(stream)
            if at >= size:
                continue
            try:
                data = os.pread(self._spool(stream), min(READ_SIZE, size - at), at)
            except OSError:
                data = b""
            if data:
                self._read[stream] += len(data)
                self._turn = _other(stream)
                return Chunk(stream, data)
            # A process removed the spool, or truncated it.
            self._read[stream] = size
        return None

    def _known_size(self, stream: Stream) -> int:
        """Return the size of a stream. Beside a flood on the other one messages are late, so it checks the file."""
        other, known = _other(stream), self._sizes[stream]
        if self._read[stream] >= known and self._sizes[other] - self._read[other] > READ_SIZE:
            with contextlib.suppress(OSError):
                known = max(known, os.fstat(self._spool(stream)).st_size)
        return known

    def _spool(self, stream: Stream) -> int:
        if stream not in self._spools:
            self._spools[stream] = self._files.open_spool(self._id, stream)
        return self._spools[stream]

    def _finish(self, ended: Ended | Lost) -> None:
        if isinstance(ended, Lost):
            raise ended
        if not self._files.state.is_dir():
            self._ended = self._files.removed
            return
        self._exit = Exit(
            ended.code,
            signal_name(ended.code),
            timed_out=ended.timed_out,
            left_processes=ended.left_processes,
            output_lost=ended.output_lost,
        )
        if ended.output_lost:
            self._pending.append(Chunk(Stream.STDERR, TRUNCATED))

    def _catch_up(self, beginning: int, ending: int) -> None:
        """Skip to the end of the spools if they are far ahead, and free the disk of the part that was read."""
        self._next_look, self._taken = time.monotonic() + LOOK_EVERY, 0
        while self._hear(0.0) and self._ended is None:
            pass
        for stream in Stream:
            ahead = self._sizes[stream] - ending - self._read[stream]
            if ahead > LEAST_AHEAD:
                self._read[stream] += ahead
                self._pending.append(Chunk(stream, b"", skipped=ahead))
            start, end = max(beginning, self._freed[stream]), self._read[stream] - ending
            if end > start:
                punch(self._files.of(self._id, stream.value), start, end - start)
                self._freed[stream] = end

    def _release_output(self) -> None:
        """Let the command write on: it waits once too much is unread. The middle of a flood waits for no reader."""
        ends = self._sizes if self._wanted else self._read
        if self._ended or all(ends[stream] - self._released_to[stream] < RELEASE_EVERY for stream in Stream):
            return
        self._released_to = dict(ends)
        if self._line:
            with contextlib.suppress(*DISCONNECTED):  # the next message that it waits for shows that
                self._line.send(b"read", *(b"%d" % ends[stream] for stream in Stream))

    def _send_stop(self) -> None:
        """Send the stop. The caller holds the lock."""
        assert self._stop_by is not None
        grace = max(0.0, self._stop_by - time.monotonic())
        if self._line:
            with contextlib.suppress(Unavailable, OSError):
                self._line.send(b"stop", os.fsencode(self._id), b"%f" % grace)


def _other(stream: Stream) -> Stream:
    return Stream.STDERR if stream is Stream.STDOUT else Stream.STDOUT
