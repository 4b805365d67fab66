"""A command that runs in a container: its output and its end read together, and again after a broken connection."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Set

from msgspec.structs import replace

from pccpipe import limits
from pccpipe.detached.ended import fetch_file
from pccpipe.docker_api.isolation import part
from pccpipe.docker_api.settings import BEGUN
from pccpipe.docker_api.stream import EngineAnswer, Skip
from pccpipe.errors import Lost, Nonsense
from pccpipe.machine.following import RemoteRunning
from pccpipe.machine.retry import UNREACHABLE
from pccpipe.outcome import Stream
from pccpipe.target import Chunk, Exit, Isolation, Token
from pccpipe.targets.container_exit import ContainerRef, exit_of
from pccpipe.targets.container_output import ExitReader, OutputReader, wait_readable
from pccpipe.targets.container_stop import ContainerStopper

DRAIN = 5.0
"""Seconds to wait for the rest of the output once the container has ended."""
ASK_AFTER = 15.0
"""Seconds of silence after which pccpipe asks the engine whether the container still runs."""
LOG_FILE = 900_000_000
"""Bytes that the engine's log always keeps. It may drop the oldest beyond twice as many (`settings.LOG_CONFIG`)."""
LINE_COST = 28
"""Bytes that a line takes in the log besides its own."""


class ContainerRunning(RemoteRunning):
    """A `Running`. One thread reads; any may stop.

    Args:
        answers: the attached output and the wait for the end; None to get them from the engine's log.
        is_marked: whether the container says when its command begins.
    """

    def __init__(
        self,
        ref: ContainerRef,
        isolation: Isolation,
        answers: tuple[EngineAnswer, EngineAnswer] | None,
        lost_after: float,
        *,
        is_marked: bool,
    ) -> None:
        super().__init__(isolation, lost_after)
        self._ref = ref
        self._given = dict.fromkeys(Stream, 0)
        self._logged = 0
        """Bytes that the engine's log took for what was given."""
        self._may_lack = False
        """True if the output comes from the engine's log, from the first byte that is still there."""
        self._ending = limits.FLOOD_END.most
        self._code: int | None = None
        self._ended_at = 0.0
        self._heard = time.monotonic()
        self._was_away = False
        self._mark = BEGUN if is_marked else ""
        self._has_begun = not is_marked
        self._output: OutputReader | None = None
        self._waiting: ExitReader | None = None
        self._connected = False
        self._stopper = ContainerStopper(ref, lambda: self._exit is not None)
        if answers:
            self._read_from(*answers, Skip({}))

    @property
    def token(self) -> Token:
        return {"id": self._ref.command_id, "container": self._ref.container, "name": self._ref.name}

    def read(self, timeout: float) -> Chunk | Exit | None:
        read = super().read(timeout)
        if isinstance(read, Chunk):
            self._given[read.stream] += len(read.data)
            self._logged += len(read.data) + LINE_COST * read.data.count(b"\n")
            if self._may_lack and self._logged >= LOG_FILE:
                self._may_lack = False
                self._pending.insert(0, Chunk(read.stream, b"", skipped_more=True))
        return read

    def await_beginning(self, timeout: float) -> Exit | None:
        """Wait at most `timeout` seconds until the command begins; return the exit if the container ends before."""
        deadline = time.monotonic() + timeout
        while not self._has_begun and not (self._exit or self._lost):
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            try:
                self._go_on(left)
            except Lost:
                return None  # `read` raises it again
        return None if self._has_begun else self._exit

    def unread_text(self, limit: int) -> str:
        """Return the beginning of the output that `read` has not given yet."""
        return b"".join(chunk.data for chunk in self._pending)[:limit].decode("utf-8", "replace").strip()

    def may_skip(self, beginning: int, ending: int) -> None:  # noqa: ARG002 - the engine keeps its log by its own rule
        """Skip nothing yet: the engine bounds its log, and `DRAIN` bounds the reading after the end."""
        self._ending = ending

    def cpu_seconds(self) -> float | None:
        return self._ref.engine.cpu_seconds(self._ref.container)

    def stop(self, grace: float) -> None:
        self._stopper.stop(grace)

    def fetch(self, name: str, limit: int) -> bytes:
        ref = self._ref
        return fetch_file(ref.engine.machine, ref.run_dir, ref.command_id, name, limit, self._lost_after)

    def discard(self) -> None:
        self._disconnect()
        self._ref.litter.append(self._ref.command_id)
        self._ref.remove_quietly()

    @property
    def _is_connected(self) -> bool:
        return self._connected

    def _read_from(self, output: EngineAnswer, waiting: EngineAnswer, skip: Skip) -> None:
        self._output = OutputReader(self._ref.host, output, self._mark, skip)
        self._waiting = ExitReader(self._ref.host, waiting)
        self._connected = True
        self._heard = time.monotonic()

    def _take_in(self, timeout: float) -> None:
        waits = [timeout, ASK_AFTER]
        if self._code is not None:
            waits.append(max(0.0, self._ended_at + DRAIN - time.monotonic()))
        ready = wait_readable([reader.answer for reader in (self._output, self._waiting) if reader], min(waits))
        if self._output and self._output.answer in ready:
            self._read_output(self._output)
        if self._waiting and self._waiting.answer in ready:
            self._read_end(self._waiting)
        if self._code is not None and (self._output is None or time.monotonic() > self._ended_at + DRAIN):
            if self._output:
                self._skip_to_last_words(self._output)
            self._finish(self._code)
        elif not ready:
            self._ask_if_silent()
        else:
            self._heard = time.monotonic()

    def _read_output(self, output: OutputReader) -> None:
        self._pending += output.read()
        self._has_begun |= output.has_begun
        if output.has_ended:
            output.answer.close()
            self._output = None

    def _read_end(self, waiting: ExitReader) -> None:
        self._code = waiting.read()
        if self._code is not None:
            self._ended_at = time.monotonic()
            waiting.answer.close()
            self._waiting = None

    def _skip_to_last_words(self, output: OutputReader) -> None:
        """Give the output's end from the engine's log, and report the gap before it."""
        output.answer.close()
        self._output = None
        last: deque[Chunk] = deque()
        size = 0
        try:
            query = f"stdout=1&stderr=1&tail={limits.FLOOD_LINES.most}"
            answer = self._ref.engine.stream("GET", f"/containers/{self._ref.container}/logs?{query}")
            with contextlib.closing(answer):
                reader = OutputReader(self._ref.host, answer, self._mark, Skip({}))
                until = time.monotonic() + DRAIN
                while not reader.has_ended and time.monotonic() < until:
                    for chunk in reader.read():
                        last.append(chunk)
                        size += len(chunk.data)
                    while size - len(last[0].data if last else b"") > self._ending:
                        size -= len(last.popleft().data)
        except Nonsense:
            raise
        except UNREACHABLE:
            last.clear()
        self._pending += [*self._gaps({chunk.stream for chunk in last}), *last]

    def _gaps(self, more: Set[Stream] = frozenset()) -> list[Chunk]:
        """Report a gap of unknown size in each stream that has output, or is one of `more`."""
        return [Chunk(stream, b"", skipped_more=True) for stream in Stream if self._given[stream] or stream in more]

    def _finish(self, code: int) -> None:
        self._disconnect()
        was_stopped = self._stopper.was_asked
        exit_ = exit_of(self._ref, code, was_away=self._was_away, was_stopped=was_stopped)
        was_over = self._was_away and was_stopped and not self._stopper.may_have_arrived
        self._exit = replace(exit_, was_over=was_over)

    def _ask_if_silent(self) -> None:
        now = time.monotonic()
        if now - self._heard < ASK_AFTER:
            return
        self._heard = now
        if self._ref.state().get("Running") is not True and self._code is None:
            raise ConnectionResetError("the container has ended, and the engine did not say so")

    def _connect(self) -> None:
        container, engine = self._ref.container, self._ref.engine
        found = engine.inspect(container)
        if found is None:
            raise Lost(f"the container {self._ref.name} is gone from the engine")
        if part(found, "State").get("Status") == "created":
            # Its wait would say at once that it ended with 0.
            raise Lost(f"the engine was killed as the container {self._ref.name} began, and does not know how it ended")
        is_dropped = self._logged >= 2 * LOG_FILE
        query = "follow=1&stdout=1&stderr=1" + (f"&tail={limits.FLOOD_LINES.most}" if is_dropped else "")
        output = engine.stream("GET", f"/containers/{container}/logs?{query}")
        waiting = engine.stream("POST", f"/containers/{container}/wait?condition=not-running")
        self._code = None
        self._was_away = True
        given = dict(self._given)
        for chunk in self._pending:
            given[chunk.stream] += len(chunk.data)
        if is_dropped:
            self._mark = ""
            self._pending += self._gaps()
        self._may_lack = not is_dropped
        self._read_from(output, waiting, Skip({} if is_dropped else given))

    def _disconnect(self) -> None:
        for reader in (self._output, self._waiting):
            if reader and self._connected:
                reader.answer.close()
        self._connected = False
