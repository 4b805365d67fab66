"""A command that runs in a container: its output and its end read together, and found again after a dropped
connection.
"""

from __future__ import annotations

import contextlib
import json
import select
import shlex
import signal
import threading
import time
from collections import deque
from collections.abc import Set
from datetime import datetime

from msgspec import Struct

from pccpipe import limits
from pccpipe.detached.ended import fetch_file, signal_name
from pccpipe.detached.programs import RunDir as StatePlace
from pccpipe.docker_api.engine import DockerEngine
from pccpipe.docker_api.problems import ApiCall
from pccpipe.docker_api.settings import BEGUN, LIMIT_LABEL
from pccpipe.docker_api.stream import Beginning, Body, EngineAnswer, FrameParser, Skip
from pccpipe.errors import Lost, Nonsense, Unavailable
from pccpipe.machine.answers import EXIT_CODES, number, number_or_none
from pccpipe.machine.following import RemoteRunning
from pccpipe.machine.retry import UNREACHABLE, retrying
from pccpipe.outcome import Reason, Stream
from pccpipe.target import Chunk, Exit, Isolation, Token
from pccpipe.values import Json

DRAIN = 5.0
"""Seconds to wait for the rest of the output once the container has ended."""
ASK_AFTER = 15.0
"""Seconds of silence after which the engine is asked whether the container still runs."""
STOP_TIMEOUT = 20.0
LOG_FILE = 900_000_000
"""Bytes that the engine's log has at least, of more; twice as many, and it may have dropped the oldest
(`settings.LOG_CONFIG`)."""
PID_FILE = "/var/run/docker.pid"
ENDED_BY_SIGNAL = frozenset({128 + signal.SIGTERM, 128 + signal.SIGKILL})
ENDED_WITH_THE_ENGINE = ENDED_BY_SIGNAL | {255}
"""Exit codes of a container whose engine stops; 255 is what an engine writes when it starts and finds it dead."""
LINE_COST = 28
"""Bytes that a line takes in it besides itself."""


class ContainerRef(Struct, frozen=True):
    """Which container, on which engine, and where its command's files are."""

    engine: DockerEngine
    place: StatePlace
    command_id: str
    container: str
    name: str
    litter: list[str]
    """The ids of commands whose files the target may remove, with its next call there."""


class Contained(RemoteRunning):
    """A `Running`. One thread reads; any may stop.

    Args:
        answers: the attached output and the wait for the end; None to find them by asking the engine.
        lost_after: seconds for which the engine may stay away.
        is_marked: whether the container says when its command begins.
    """

    def __init__(
        self,
        where: ContainerRef,
        isolation: Isolation,
        answers: tuple[EngineAnswer, EngineAnswer] | None,
        lost_after: float,
        *,
        is_marked: bool,
    ) -> None:
        super().__init__(isolation, lost_after)
        self._where = where
        self._given = dict.fromkeys(Stream, 0)
        self._logged = 0
        """Bytes that the engine's log took for what was given."""
        self._may_lack = False
        """Whether it comes from the engine's log, from its first byte that is still there."""
        self._ending = limits.FLOOD_END.most
        self._code: int | None = None
        self._ended_at = 0.0
        self._heard = time.monotonic()
        self._connected = False
        self._was_away = False
        self._mark = BEGUN if is_marked else ""
        self._beginning = Beginning(self._mark)
        self._stop_by: float | None = None
        self._stop_changed = threading.Condition()
        self._stopper: threading.Thread | None = None
        self._stop_may_have_come = False
        if answers:
            self._take_up(*answers, Skip({}))

    @property
    def _host(self) -> str:
        return self._where.engine.machine.host

    @property
    def token(self) -> Token:
        return {"id": self._where.command_id, "container": self._where.container, "name": self._where.name}

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
        """Wait until the command has begun, for so long at most; the container's end if it ended before that."""
        deadline = time.monotonic() + timeout
        while not self._beginning.is_known and not (self._exit or self._lost):
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            try:
                self._go_on(left)
            except Lost:
                return None  # `read` raises it again
        return None if self._beginning.is_known else self._exit

    def said(self, limit: int) -> str:
        """The beginning of what was read and not given yet."""
        return b"".join(chunk.data for chunk in self._pending)[:limit].decode("utf-8", "replace").strip()

    def may_skip(self, beginning: int, ending: int) -> None:  # noqa: ARG002 - the engine keeps its log by its own rule
        """Skip nothing yet: the engine bounds its log by itself, and `DRAIN` what is read after the end."""
        self._ending = ending

    def stop(self, grace: float) -> None:
        with self._stop_changed:
            by = time.monotonic() + grace
            self._stop_by = min(by, self._stop_by or by)
            self._stop_changed.notify_all()
            if self._stopper is None:
                name = f"pccpipe-stop-{self._where.name}"
                self._stopper = threading.Thread(target=self._stop, name=name, daemon=True)
                self._stopper.start()

    def fetch(self, name: str, limit: int) -> bytes:
        where = self._where
        return fetch_file(where.engine.machine, where.place, where.command_id, name, limit, self._lost_after)

    def discard(self) -> None:
        self._disconnect()
        where = self._where
        where.litter.append(where.command_id)
        try:
            where.engine.remove(where.container)
        except UNREACHABLE:
            return  # the target's `close` tries again, by the run's label

    def _take_up(self, output: EngineAnswer, waiting: EngineAnswer, skip: Skip) -> None:
        self._output: EngineAnswer | None = output
        self._waiting: EngineAnswer | None = waiting
        self._frames = FrameParser()
        self._skip = skip
        self._beginning = Beginning(self._mark)
        self._body = Body(chunked=waiting.is_chunked)
        self._output_body = Body(chunked=output.is_chunked)
        self._answer = b""
        self._connected = True
        self._heard = time.monotonic()

    @property
    def _is_connected(self) -> bool:
        return self._connected

    def _take_in(self, timeout: float) -> None:
        """Wait for output or the end, and take in what comes."""
        waits = [timeout, ASK_AFTER]
        if self._code is not None:
            waits.append(max(0.0, self._ended_at + DRAIN - time.monotonic()))
        ready = _ready([answer for answer in (self._output, self._waiting) if answer], min(waits))
        if self._output in ready:
            self._take_output(self._output)
        if self._waiting in ready:
            self._take_end(self._waiting)
        if self._code is not None and (self._output is None or time.monotonic() > self._ended_at + DRAIN):
            if self._output:
                self._skip_to_last_words(self._output)
            self._finish(self._code)
        elif not ready:
            self._ask_if_silent()
        else:
            self._heard = time.monotonic()

    def _take_output(self, output: EngineAnswer | None) -> None:
        assert output is not None
        data = output.read()
        try:
            chunks = list(self._frames.feed(self._output_body.feed(data)))
        except ValueError as error:
            raise Nonsense(self._host, "output", str(error)) from error
        for chunk in chunks:
            self._take_chunk(self._beginning.feed(chunk))
        if not data or self._output_body.ended:
            if not self._frames.is_between_frames:
                raise ConnectionResetError("the output was cut")
            self._take_chunk(self._beginning.rest())
            output.close()
            self._output = None

    def _skip_to_last_words(self, output: EngineAnswer) -> None:
        """Go on near the output's end, which the engine's log has, and say that something is left out before it."""
        output.close()
        self._output = None
        last: deque[Chunk] = deque()
        size = 0
        try:
            query = f"stdout=1&stderr=1&tail={limits.FLOOD_LINES.most}"
            answer = self._where.engine.stream("GET", f"/containers/{self._where.container}/logs?{query}")
            with contextlib.closing(answer):
                body, frames, beginning = Body(chunked=answer.is_chunked), FrameParser(), Beginning(self._mark)
                until = time.monotonic() + DRAIN
                while not body.ended and time.monotonic() < until and (data := answer.read()):
                    for chunk in filter(None, map(beginning.feed, frames.feed(body.feed(data)))):
                        last.append(chunk)
                        size += len(chunk.data)
                    while size - len(last[0].data if last else b"") > self._ending:
                        size -= len(last.popleft().data)
        except ValueError as error:
            raise Nonsense(self._host, "output", str(error)) from error
        except Nonsense:
            raise
        except UNREACHABLE:
            last.clear()
        self._pending += [*self._gaps({chunk.stream for chunk in last}), *last]

    def _gaps(self, more: Set[Stream] = frozenset()) -> list[Chunk]:
        """Say of each stream that has output, or is one of `more`, that nobody knows how much of it is left out."""
        return [Chunk(stream, b"", skipped_more=True) for stream in Stream if self._given[stream] or stream in more]

    def _take_chunk(self, chunk: Chunk | None) -> None:
        new = chunk and self._skip.feed(chunk)
        if new:
            self._pending.append(new)

    def _take_end(self, waiting: EngineAnswer | None) -> None:
        assert waiting is not None
        data = waiting.read()
        try:
            self._answer += self._body.feed(data)
        except ValueError as error:
            raise Nonsense(self._host, "word on a container's end", str(error)) from error
        if len(self._answer) > limits.WAIT_ANSWER.most:
            raise Nonsense(self._host, "word on a container's end", self._answer)
        try:
            answer = json.loads(self._answer)
        except (ValueError, RecursionError):
            if not data:
                raise ConnectionResetError("the engine ended the wait") from None
            return
        code = answer.get("StatusCode") if isinstance(answer, dict) else None
        self._code = number(self._host, "container's exit code", code, EXIT_CODES)
        self._ended_at = time.monotonic()
        waiting.close()
        self._waiting = None

    def _finish(self, code: int) -> None:
        """The container has ended and its output is read. How, the engine knows; not to know the memory is no reason
        to fail.
        """
        self._disconnect()
        found: dict[str, Json] | None = None
        began_again = False
        may_be_the_engines = code in ENDED_WITH_THE_ENGINE and self._stopper is None
        try:
            if code or self._was_away:
                found = self._where.engine.inspect(self._where.container)
            if may_be_the_engines or self._was_away:
                began_again = self._engine_began_after(_state(found).get("StartedAt"))
        except UNREACHABLE as error:
            if may_be_the_engines:
                self._ask_a_stopped_engine(error)
        out_of_memory, timed_out = _state(found).get("OOMKilled") is True, had_its_time(found, code)
        if began_again and may_be_the_engines and not out_of_memory and not timed_out:
            raise self._lost_with("the engine, or all of {host}, was restarted")
        self._exit = Exit(
            code,
            signal_name(code),
            out_of_memory=out_of_memory,
            timed_out=timed_out,
            output_lost=began_again and self._was_away,
            was_over=self._was_away and self._stopper is not None and not self._stop_may_have_come,
        )

    def _ask_a_stopped_engine(self, error: Exception) -> None:
        """Raise what follows if the engine is gone as soon as the container is: an engine that stops ends containers.

        It takes no connections from then on. Where systemd does that for it, or the machine is away, it is asked again.
        """
        if isinstance(error, Unavailable) and error.reason in (Reason.ENGINE_MISSING, Reason.ENGINE_STOPPED):
            raise self._lost_with("the engine of {host} was stopped") from error
        raise ConnectionResetError(str(error)) from error

    def _lost_with(self, words: str) -> Lost:
        words = f"{words.format(host=self._host)} while the container {self._where.name} ran"
        return Lost(f"{words}, so how its command would have ended is unknown")

    def _engine_began_after(self, moment: object) -> bool:
        """Whether the engine was started after a container was, by the files that it makes then."""
        engine = self._where.engine
        files = shlex.join(filter(None, (PID_FILE, engine.socket)))
        said = engine.machine.run(f"stat -c %.3Y {files} 2>/dev/null | tr -d . | sort -n | tail -n 1").stdout
        milliseconds = number_or_none(said.strip())
        try:
            return milliseconds is not None and milliseconds > datetime.fromisoformat(str(moment)).timestamp() * 1000
        except (ValueError, OverflowError):
            return False

    def _ask_if_silent(self) -> None:
        now = time.monotonic()
        if now - self._heard < ASK_AFTER:
            return
        self._heard = now
        if _state(self._where.engine.inspect(self._where.container)).get("Running") is not True and self._code is None:
            raise ConnectionResetError("the container has ended, and the engine did not say so")

    def _connect(self) -> None:
        """Ask the engine how things are, and go on where the output stopped."""
        container, engine = self._where.container, self._where.engine
        if engine.inspect(container) is None:
            raise Lost(f"the container {self._where.name} is gone from the engine")
        is_dropped = self._logged >= 2 * LOG_FILE
        query = "follow=1&stdout=1&stderr=1" + (f"&tail={limits.FLOOD_LINES.most}" if is_dropped else "")
        output = engine.stream("GET", f"/containers/{container}/logs?{query}")
        waiting = engine.stream("POST", f"/containers/{container}/wait?condition=not-running")
        self._code = None
        self._was_away = True
        given = dict(self._given)
        for chunk in self._pending:
            given[chunk.stream] += len(chunk.data)
        self._take_up(output, waiting, Skip({} if is_dropped else given))
        self._may_lack = not is_dropped
        if is_dropped:
            self._beginning = Beginning("")
            self._pending += self._gaps()

    def _disconnect(self) -> None:
        if self._connected:
            for answer in (self._output, self._waiting):
                if answer:
                    answer.close()
        self._connected = False

    def _stop(self) -> None:
        """The stopper's thread: TERM to everything in the container, and KILL when the grace is over."""
        self._signal_all()
        with self._stop_changed:
            while self._exit is None:
                assert self._stop_by is not None
                left = self._stop_by - time.monotonic()
                if left <= 0:
                    break
                self._stop_changed.wait(min(left, 0.2))
        container = self._where.container

        def kill() -> None:
            if self._exit is None and _state(self._where.engine.inspect(container)).get("Running") is True:
                self._stop_may_have_come = True
                self._where.engine.ask(ApiCall.OTHER, lambda client: client.kill(container, "KILL"))

        with contextlib.suppress(Lost):
            retrying(kill, STOP_TIMEOUT)

    def _signal_all(self) -> None:
        """TERM to every process: the engine's own signal would reach the first one alone."""
        container = self._where.container
        tell = ["/bin/sh", "-c", "kill -TERM -1"]
        try:
            engine = self._where.engine
            made = engine.id_of(engine.ask(ApiCall.OTHER, lambda client: client.exec_create(container, tell)))
            self._stop_may_have_come = True
            engine.ask(ApiCall.OTHER, lambda client: client.exec_start(made, detach=True))
        except UNREACHABLE:
            return  # it has ended, or KILL will do


def _ready(answers: list[EngineAnswer], timeout: float) -> list[EngineAnswer]:
    waiting = [answer for answer in answers if answer.has_more]
    if waiting:
        return waiting
    poller = select.poll()
    by_fd = {answer.fileno(): answer for answer in answers}
    for fd in by_fd:
        poller.register(fd, select.POLLIN)
    return [by_fd[fd] for fd, _ in poller.poll(max(0.0, timeout) * 1000)]


def had_its_time(found: dict[str, Json] | None, code: int) -> bool:
    """Whether a container ran for as long as it may, by the engine's own account."""
    match found:
        case {
            "Created": str(made),
            "State": {"StartedAt": str(began), "FinishedAt": str(ended)},
            "Config": {"Labels": {**labels}},
        }:
            limit = number_or_none(labels.get(LIMIT_LABEL))
            # The engine notes a start when it hears of it: on a busy machine seconds late, and the time is over before.
            since = made if code in ENDED_BY_SIGNAL else began
            try:
                seconds = (datetime.fromisoformat(ended) - datetime.fromisoformat(since)).total_seconds()
            except (ValueError, TypeError, OverflowError):
                return False
            return limit is not None and seconds >= limit
        case _:
            return False


def _state(found: dict[str, Json] | None) -> dict[str, Json]:
    state = (found or {}).get("State")
    return state if isinstance(state, dict) else {}
