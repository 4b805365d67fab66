"""Follow a command to its end: pass its output to the log and the views, and stop it at a deadline or a cancel."""

from __future__ import annotations

import codecs
import functools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from msgspec import Struct

from pccpipe.cancel import Deadline
from pccpipe.errors import Lost
from pccpipe.executor.agent_output import AgentOutput
from pccpipe.executor.command_watch import CommandWatch, WatchEnd
from pccpipe.executor.context import RunContext
from pccpipe.outcome import Stream
from pccpipe.record.events import Output
from pccpipe.record.logs import CommandLog
from pccpipe.target import Chunk, Exit, Running

T = TypeVar("T")

LAST_WAIT = 60.0
"""Seconds after KILL in which a target must report how the command ended; later, the command is lost."""
SIGN_LIMIT = 1.5
"""Seconds in which the place of a cancelled command must give a sign of life; else the command is abandoned."""
ASK_AGAIN = 2.0
"""Seconds between two such checks during the command's grace period."""
ABANDONED = "cancelled; its machine does not answer: it may go on there until its time limit"
LONGEST_READ = 10.0
"""Seconds of one wait for output; after it, the loop checks its limits again."""
MARGIN = 64 << 10
"""Bytes that are dropped after a gap, besides the longest secret, because a secret may begin in the gap."""
CUT = "\n... more than log_limit: no more is shown; the log keeps the end ...\n"


class FollowedResult(Struct, frozen=True):
    """The end of a followed command. `exit` is None if it is unknown; `message` says why, or names the limit."""

    exit: Exit | None
    timed_out: bool = False
    cancelled: bool = False
    message: str = ""
    is_limited: bool = False
    """It was stopped because of its provider's limit."""
    is_abandoned: bool = False
    """It was cancelled while its machine was unreachable, and may still run."""


def follow(
    context: RunContext,
    path: str,
    running: Running,
    log: CommandLog,
    deadline: Deadline | None,
    gives_sign: Callable[[], bool] | None = None,
    agent: AgentOutput | None = None,
    watch: CommandWatch | None = None,
) -> FollowedResult:
    """Read a command to its end. A deadline or a cancel stops it; the output so far is kept.

    Args:
        gives_sign: asks the command's machine for a sign of life; None for this machine.
        agent: gets the stdout of a step with `agent:`.
        watch: says whether such a step does nothing, or cannot go on.

    Raises RecordFull once the run gives up its record, whatever the command does.
    """
    follower = _Follower(context, path, running, log, deadline, agent, watch)
    with context.cancel.watched_by(follower.cancel):
        return _follow_in_thread(follower, gives_sign) if gives_sign else follower.run()


def _follow_in_thread(follower: _Follower, gives_sign: Callable[[], bool]) -> FollowedResult:
    """Follow the command in a thread; abandon the thread if the machine is silent when the run is cancelled."""
    done: Future[FollowedResult] = Future()
    done.add_done_callback(functools.partial(_wake, follower.woken))
    _in_thread("pccpipe-follow", done, follower.run)
    follower.woken.wait()
    while not done.done():
        sign: Future[bool] = Future()
        until = time.monotonic() + SIGN_LIMIT
        _in_thread("pccpipe-sign", sign, functools.partial(_sign_came, gives_sign, until))
        either = threading.Event()
        done.add_done_callback(functools.partial(_wake, either))
        sign.add_done_callback(functools.partial(_wake, either))
        either.wait(SIGN_LIMIT)
        if not done.done() and not (sign.done() and sign.exception() is None and sign.result()):
            return follower.abandon()
        wait([done], ASK_AGAIN)
    return done.result()


def _wake(waiting: threading.Event, _: object) -> None:
    waiting.set()


def _sign_came(gives_sign: Callable[[], bool], until: float) -> bool:
    while not gives_sign():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def _in_thread(name: str, done: Future[T], do: Callable[[], T]) -> None:
    def work() -> None:
        try:
            done.set_result(do())
        except BaseException as error:  # noqa: BLE001 - raised again where the future is awaited
            done.set_exception(error)

    threading.Thread(target=work, name=name, daemon=True).start()


class _Follower:
    def __init__(
        self,
        context: RunContext,
        path: str,
        running: Running,
        log: CommandLog,
        deadline: Deadline | None,
        agent: AgentOutput | None,
        watch: CommandWatch | None,
    ) -> None:
        self._watch = watch
        self._watch_end: WatchEnd | None = None
        self._grace = context.cancel
        self._room = context.room
        self._running = running
        self._log = log
        self._margin = MARGIN + context.masker.longest
        self._may_skip = False
        self._deadline = deadline
        self._outputs = {
            stream: _OutputStream(context, path, log, stream, agent if stream is Stream.STDOUT else None)
            for stream in Stream
        }
        self._last_moment: float | None = None
        self._cancelled = False
        self._timed_out = False
        self._writing = threading.Lock()
        self._abandoned = False
        self.woken = threading.Event()
        """Set when the run is cancelled, and when the command has ended."""

    def cancel(self, grace: float) -> None:
        """Stop the command in a thread: an unreachable machine must not block the canceller, which others wait for."""
        self._cancelled = True
        threading.Thread(target=self._stop, args=(grace,), name="pccpipe-stop", daemon=True).start()
        self.woken.set()

    def abandon(self) -> FollowedResult:
        """Stop following, whatever the reading thread waits for."""
        with self._writing:
            self._abandoned = True
            self._finish_outputs()
        self._running.let_go()
        return FollowedResult(None, cancelled=True, message=ABANDONED, is_abandoned=True)

    def run(self) -> FollowedResult:
        message = ""
        try:
            exit_ = self._read_to_end()
            if exit_ is None:
                message = f"it was killed, and {LAST_WAIT:g} s later its target could not say how it had ended"
        except Lost as lost:
            exit_, message = None, lost.words
        with self._writing:
            if self._abandoned:
                # Another reader may have attached to it meanwhile.
                self._running.let_go()
            else:
                self._finish_outputs()
        # A command that ended before its limit did not time out, even if the connection was down then.
        timed_out = self._timed_out and not (exit_ and exit_.was_over)
        if timed_out and self._deadline:
            message = self._deadline.message
        is_limited = False
        if self._watch and self._watch_end and not (exit_ and exit_.was_over) and not self._cancelled:
            message = message or self._watch.message
            timed_out = timed_out or self._watch_end is WatchEnd.STALLED
            is_limited = not timed_out
        return FollowedResult(exit_, timed_out, self._cancelled and not timed_out, message, is_limited)

    def _finish_outputs(self) -> None:
        for output in self._outputs.values():
            output.finish()

    def _read_to_end(self) -> Exit | None:
        while True:
            self._room.check()
            read = self._running.read(self._read_timeout())
            if isinstance(read, Exit):
                return read
            with self._writing:
                if self._abandoned:
                    return None
                if read:
                    self._pass(read)
            self._look()
            now = time.monotonic()
            if not self._may_skip and (self._log.is_full or self._is_late(now)):
                self._may_skip = True
                self._running.may_skip(self._log.beginning + self._margin, self._log.ending + self._margin)
            if self._last_moment is not None and now > self._last_moment:
                return None
            if self._deadline and self._deadline.passed and not self._timed_out and not self._cancelled:
                self._timed_out = True
                self._stop(self._grace.grace)

    def _look(self) -> None:
        """Stop a command that does nothing, or that cannot go on."""
        if self._watch and self._last_moment is None and (end := self._watch.check()):
            self._watch_end = end
            self._stop(self._grace.grace)

    def _pass(self, chunk: Chunk) -> None:
        if self._watch:
            self._watch.heard()
        output = self._outputs[chunk.stream]
        if chunk.skipped or chunk.skipped_more:
            output.skip(chunk.skipped, self._margin, more=chunk.skipped_more)
        output.feed(chunk.data)

    def _is_late(self, now: float) -> bool:
        """Say whether a killed command has more output than can be read in time."""
        return self._last_moment is not None and now > self._last_moment - LAST_WAIT / 2

    def _read_timeout(self) -> float:
        if self._last_moment is not None or self._deadline is None or self._timed_out:
            return 1.0 if self._last_moment is not None else LONGEST_READ
        longest = min(LONGEST_READ, self._watch.every) if self._watch else LONGEST_READ
        return min(longest, self._deadline.left)

    def _stop(self, grace: float) -> None:
        self._last_moment = time.monotonic() + grace + LAST_WAIT
        self._running.stop(grace)


class _OutputStream:
    """The path of one stream: masked, then as bytes into the log file and as text to the views."""

    def __init__(
        self, context: RunContext, path: str, log: CommandLog, stream: Stream, agent: AgentOutput | None
    ) -> None:
        self._agent = agent
        self._masker = context.masker
        self._mask = context.masker.stream()
        self._journal = context.journal
        self._log = log
        self._path = path
        self._stream = stream
        # The end of a chunk may cut a character; bytes that are not UTF-8 appear as the replacement character.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._unsafe = 0
        """Bytes to drop, because they may be the rest of a secret that began in a gap."""

    def feed(self, data: bytes) -> None:
        if self._unsafe:
            dropped = min(self._unsafe, len(data))
            self._unsafe -= dropped
            self._log.skip(self._stream, dropped)
            data = data[dropped:]
        self._pass_on(self._mask.feed(data), final=False)

    def skip(self, size: int, margin: int, *, more: bool) -> None:
        """Count skipped bytes, and drop those that the mask holds back: they may be the beginning of a secret."""
        self._log.skip(self._stream, size + self._mask.held, more=more)
        self._mask = self._masker.stream()
        self._unsafe = margin
        if self._agent:
            self._agent.skip()
        self._end_shown()

    def finish(self) -> None:
        self._pass_on(self._mask.finish(), final=True)
        if self._agent:
            self._agent.finish()

    def _pass_on(self, data: bytes, *, final: bool) -> None:
        if not data and not final:
            return
        shown = self._log.write(self._stream, data) if data else 0
        if self._agent:
            self._agent.had_secret = self._agent.had_secret or self._mask.found
            self._agent.feed(data)
        text = self._decoder.decode(data[:shown], final)
        if text:
            self._journal.append(Output(self._path, self._stream, text))
        if shown < len(data):
            self._end_shown()

    def _end_shown(self) -> None:
        """Tell the views once that no more is shown; the log still gets the end."""
        if not self._log.is_cut_shown:
            self._log.is_cut_shown = True
            self._journal.append(Output(self._path, self._stream, CUT))
