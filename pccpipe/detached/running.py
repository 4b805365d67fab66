"""Follows a command that runs detached on a machine through a lane, and through another one when that breaks."""

from __future__ import annotations

import contextlib
import threading
import time

from pccpipe.detached import programs
from pccpipe.detached.ended import TRUNCATED, fetch_file, signal_name
from pccpipe.detached.lane import Lane
from pccpipe.detached.pool import Lanes
from pccpipe.detached.programs import CommandRef
from pccpipe.detached.trailer import Trailer, TrailerFinder
from pccpipe.errors import Lost
from pccpipe.machine import logind
from pccpipe.machine.answers import number
from pccpipe.machine.following import RemoteRunning
from pccpipe.machine.retry import UNREACHABLE
from pccpipe.outcome import Stream
from pccpipe.target import Chunk, Exit, Isolation, Token

LOST_AFTER = 600.0
"""Seconds without an answer of a machine after which its commands count as lost."""
ASK_AFTER = 15.0
"""Seconds without output after which it asks the machine whether the command is still running."""
LOOK_EVERY = 1.0
"""Seconds between two checks of how far the spools of a flood are ahead of the reader."""
LEAST_AHEAD = 16 << 20
"""Bytes that a spool must be ahead, beyond the wanted end, before it skips the rest."""


class DetachedRunning(RemoteRunning):
    """A `Running`. One thread reads; any may stop.

    Args:
        lane: the lane on which the command began; None to attach to the command first.
        lost_after: seconds without an answer of the machine after which the command counts as lost.
    """

    def __init__(
        self,
        lanes: Lanes,
        ref: CommandRef,
        isolation: Isolation,
        lane: Lane | None,
        lost_after: float = LOST_AFTER,
    ) -> None:
        super().__init__(isolation, lost_after)
        self._lanes = lanes
        self._ref = ref
        self._lane = lane
        self._begun_on = lane
        self._offsets = ref.offsets
        self._finders = {stream: TrailerFinder(ref.mark, lanes.machine.host) for stream in Stream}
        self._ended: set[Stream] = set()
        self._output_lost = False
        self._looks = 4
        self._heard = time.monotonic()
        self._stop_lock = threading.Lock()
        self._stop_by: float | None = None
        self._stop_sent = True
        self._was_over = False
        """True if the command had ended before `stop` reached the machine."""
        self._stop_may_have_come = False
        self._wanted: tuple[int, int] | None = None
        """The numbers of bytes that the reader wants of a flood: of its beginning and of its end."""
        self._next_look = 0.0

    @property
    def token(self) -> Token:
        return self._ref.token()

    def may_skip(self, beginning: int, ending: int) -> None:
        self._wanted = (beginning, ending)

    def stop(self, grace: float) -> None:
        with self._stop_lock:
            by = time.monotonic() + grace
            self._stop_by = min(by, self._stop_by or by)
            self._stop_sent = False
            # While the machine is unreachable, the reading thread sends it later.
            if self._lane:
                self._send_stop()

    def fetch(self, name: str, limit: int) -> bytes:
        lanes = self._lanes
        return fetch_file(lanes.machine, lanes.run_dir, self._ref.id, name, limit, self._lost_after)

    def discard(self) -> None:
        lane, self._lane = self._lane, None
        if self._exit and lane and lane is self._begun_on and self._is_reusable():
            self._lanes.discard(self._ref.id)
            self._lanes.give_back(lane)
            return
        if lane:
            lane.close()
        if self._exit:
            self._lanes.discard(self._ref.id)
            self._lanes.retire(self._ref.folder)
        else:
            # It may still be running, and ending it takes its files. The run's end removes them.
            if lane:
                self._send(programs.stop(self._ref.id, 0))
            self._lanes.retire(None)

    def follow(self, lane: Lane) -> None:
        """Continue on a lane that is attached to the command, where the last lane stopped."""
        self._ended.clear()
        self._heard = time.monotonic()
        with self._stop_lock:
            self._lane = lane
            self._was_over = bool(lane.ended and self._stop_by is not None and not self._stop_may_have_come)
            # A stop that was sent may have been lost with the lane.
            self._stop_sent = self._stop_by is None or self._was_over

    @property
    def _is_connected(self) -> bool:
        return self._lane is not None

    def _take_in(self, timeout: float) -> None:
        """Wait for output, and pass it to the finders."""
        lane = self._lane
        assert lane
        if not self._stop_sent:
            with self._stop_lock:
                self._send_stop()
        if self._wanted and time.monotonic() >= self._next_look:
            self._catch_up(lane, *self._wanted)
        if self._lane is not lane:
            return
        readable = [stream for stream in lane.ready(min(timeout, ASK_AFTER)) if stream not in self._ended]
        for stream in readable:
            data = lane.read(stream)
            if not data:
                self._end_of(lane, stream)
                return
            self._heard = time.monotonic()
            output = self._finders[stream].feed(data)
            if output:
                self._pending.append(Chunk(stream, output))
        if not readable:
            self._ask_if_silent()
        elif all(finder.trailer for finder in self._finders.values()):
            self._finish(self._trailers()[0])

    def _catch_up(self, lane: Lane, beginning: int, ending: int) -> None:
        """Skip to the end of the spools if they are far ahead, and free the disk of the part that was read."""
        self._next_look = time.monotonic() + LOOK_EVERY
        folder = self._ref.folder
        answer = self._lanes.control.ask(lambda mark: programs.measure(mark, folder))
        host = self._lanes.machine.host
        sizes = dict(zip(Stream, (number(host, "size of a spool", size) for size in answer.split()), strict=False))
        received = dict(zip(Stream, lane.offsets, strict=True))
        skipped = {
            stream: sizes[stream] - ending - received[stream]
            for stream in Stream
            if stream in sizes and sizes[stream] - ending - received[stream] > LEAST_AHEAD
            # Output behind a trailer is not this command's.
            if not self._finders[stream].has_found
        }
        if skipped:
            self._disconnect()
            for stream, size in skipped.items():
                received[stream] += size
                # Bytes that the finder held back are in the gap.
                held = len(self._finders[stream].give_up())
                self._pending.append(Chunk(stream, b"", skipped=held + size))
            self._offsets = (received[Stream.STDOUT], received[Stream.STDERR])
        for stream, begun in zip(Stream, self._ref.offsets, strict=True):
            hole = received[stream] - ending - begun - beginning
            if hole > 0:
                self._send(programs.punch(folder, stream, begun + beginning, hole))

    def _end_of(self, lane: Lane, stream: Stream) -> None:
        """Handle the lane's end: the command's end if its supervisor has ended, else a broken connection."""
        self._ended.add(stream)
        if not lane.ended:
            raise ConnectionResetError("the lane has ended")
        if len(self._ended) == len(Stream):
            trailers = self._trailers()
            if len(trailers) < len(Stream) and self._looks:
                # They may still be on their way into the spools.
                self._looks -= 1
                time.sleep(0.5)
                raise ConnectionResetError("the command has ended, but its output has not")
            if len(trailers) < len(Stream):
                self._pending += [Chunk(stream, held) for stream in Stream if (held := self._finders[stream].give_up())]
                self._pending.append(Chunk(Stream.STDERR, TRUNCATED))
                self._output_lost = True
            self._finish(trailers[0] if trailers else lane.ended)

    def _finish(self, trailer: Trailer) -> None:
        if trailer.code is None:
            self._lost = Lost(self._why_lost())
            return
        self._exit = Exit(
            trailer.code,
            signal_name(trailer.code),
            timed_out=trailer.timed_out,
            left_processes=trailer.left_processes,
            output_lost=self._output_lost,
            was_over=self._was_over,
        )

    def _why_lost(self) -> str:
        """Explain the end of a command whose supervisor did not record it."""
        machine = self._lanes.machine
        words = f"{self._ref.id} was running when {machine.host} was restarted"
        if self._lane and self._lane.restarted:
            return words
        if blame := logind.blame(machine):
            return f"the supervisor of {self._ref.id} was killed: {blame}"
        # A machine that shares its kernel with others may have been restarted without a new boot id.
        return f"{words}, or its supervisor was killed; next: pccpipe doctor"

    def _trailers(self) -> list[Trailer]:
        return [finder.trailer for finder in self._finders.values() if finder.trailer]

    def _is_reusable(self) -> bool:
        trailers = self._trailers()
        return len(trailers) == len(Stream) and all(trailer.reusable for trailer in trailers)

    def _ask_if_silent(self) -> None:
        """After a long silence, ask whether the supervisor, or the process that reports its end, was killed."""
        now = time.monotonic()
        if now - self._heard < ASK_AFTER:
            return
        self._heard = now
        answer = self._lanes.control.ask(lambda mark: programs.is_alive(mark, self._ref.id))
        if answer != "yes":
            raise ConnectionResetError("the command's supervisor has ended")

    def _disconnect(self) -> None:
        if self._lane:
            self._offsets = self._lane.offsets
            self._lane.close()
            self._lane = None

    def _connect(self) -> None:
        run_dir, ref = self._lanes.run_dir, self._ref
        self.follow(Lane.attached(self._lanes.machine, run_dir, ref.folder, ref.id, self._offsets))

    def _send_stop(self) -> None:
        """Send the stop. The caller holds the lock."""
        assert self._stop_by is not None
        grace = max(0.0, self._stop_by - time.monotonic())
        with contextlib.suppress(*UNREACHABLE):
            self._stop_may_have_come = True
            self._lanes.control.send(programs.stop(self._ref.id, grace))
            self._stop_sent = True

    def _send(self, program: bytes) -> None:
        with contextlib.suppress(*UNREACHABLE):
            self._lanes.control.send(program)
