"""Talks to a lane: a persistent sh on a machine that runs commands detached, one at a time (see lane.sh)."""

from __future__ import annotations

import secrets
import time
from typing import TypeVar

from pccpipe import limits
from pccpipe.detached import programs
from pccpipe.detached.programs import Offsets, RunDir
from pccpipe.detached.trailer import Trailer
from pccpipe.errors import Lost, Nonsense, Unavailable
from pccpipe.layout import LANE
from pccpipe.machine.base import Machine, Process, cannot_write
from pccpipe.machine.entering import gone, replaced
from pccpipe.outcome import Reason, Stream

ANSWER_TIMEOUT = 30.0
"""Seconds in which a lane must answer a program; it has a few files to write."""
READ_SIZE = 256 * 1024

T = TypeVar("T")


def new_mark() -> str:
    """Return a word that nobody can guess."""
    return secrets.token_hex(16)


class LaneShell:
    """An sh that takes programs and answers. Its methods raise ConnectionError once it has ended."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._unread = dict.fromkeys(Stream, b"")
        process.settimeout(ANSWER_TIMEOUT)

    def send(self, program: bytes) -> None:
        """Send a program without an answer."""
        self._process.sendall(program)

    def ask(self, program: bytes, mark: str) -> str:
        """Send a program, and return the answer behind `mark`. Raises TimeoutError, ConnectionError."""
        self.send(program)
        self._read_until(Stream.STDOUT, b"\x1e" + mark.encode() + b" ")
        return self._read_until(Stream.STDOUT, b"\x1e\n").decode(errors="replace")

    def close(self) -> None:
        """Close the shell's stdin, which ends it. Its commands keep running."""
        self._process.close()

    def _read_until(self, stream: Stream, end: bytes) -> bytes:
        """Read a stream up to `end`, and leave the rest unread."""
        deadline = time.monotonic() + ANSWER_TIMEOUT
        while end not in self._unread[stream]:
            if time.monotonic() > deadline:
                raise TimeoutError("the shell did not answer in time")
            for readable in self._readable(1.0):
                data = self._receive(readable)
                if not data and readable is not stream:
                    # The shell has ended, but its last output may still be on its way.
                    time.sleep(0.005)
                elif not data:
                    said = b"".join(self._unread.values()).decode(errors="replace").strip()
                    raise ConnectionResetError(said or "the shell has ended")
                self._unread[readable] += data
        before, _, self._unread[stream] = self._unread[stream].partition(end)
        return before

    def _readable(self, timeout: float) -> list[Stream]:
        return [stream for stream, ready in zip(Stream, self._process.ready(timeout), strict=True) if ready]

    def _receive(self, stream: Stream) -> bytes:
        receive = self._process.recv if stream is Stream.STDOUT else self._process.recv_stderr
        return receive(READ_SIZE)


class Lane(LaneShell):
    """A lane that shows a command's output. One thread uses it at a time.

    Args:
        folder: its own folder, or that of the other lane whose command it only shows.
        offsets: how many bytes of its two spools it skips.
    """

    def __init__(self, process: Process, folder: str, offsets: Offsets = (0, 0)) -> None:
        super().__init__(process)
        self.folder = folder
        self.ended: Trailer | None = None
        """The end of the command, for a lane that shows one whose supervisor ended before."""
        self.restarted = False
        """True if the machine was restarted since that command began."""
        self._received = dict(zip(Stream, offsets, strict=True))

    @classmethod
    def open(cls, machine: Machine, run_dir: RunDir) -> Lane:
        """Open a new lane. Raises `Unavailable`, ConnectionError, TimeoutError."""
        lane = cls(machine.popen("exec sh"), f"{run_dir.state}/{LANE}{secrets.token_hex(8)}")
        mark = new_mark()
        lane._opened(machine, programs.open_lane(run_dir, mark, lane.folder), mark)
        return lane

    @classmethod
    def attached(cls, machine: Machine, run_dir: RunDir, folder: str, command_id: str, offsets: Offsets) -> Lane:
        """Open a lane that shows a command of the lane in `folder`. It ends by itself if the command has ended.

        Raises `Unavailable`, ConnectionError, TimeoutError; `Lost` if the machine does not know the command.
        """
        lane = cls(machine.popen("exec sh"), folder, offsets)
        mark = new_mark()
        program = programs.attach(run_dir, mark, folder, command_id, offsets)
        state, _, ended = lane._opened(machine, program, mark).partition(" ")
        if state not in {"alive", "dead", "restarted"}:
            lane.close()
            raise Nonsense(machine.host, "report on a command", state)
        if state != "alive":
            lane.ended = Trailer.of(machine.host, ended)
            lane.restarted = state == "restarted"
        return lane

    @property
    def offsets(self) -> Offsets:
        """The number of bytes that came from each spool: the next command's output begins there."""
        return self._received[Stream.STDOUT], self._received[Stream.STDERR]

    @property
    def is_full(self) -> bool:
        return sum(self.offsets) > limits.LANE_OUTPUT.most

    def begin(self, machine: Machine, program: bytes, mark: str, workspace: str) -> bool:
        """Begin a command in a workspace; return False if the run's gate is gone.

        Raises `Unavailable` or WorkspaceGone if the command never began, ConnectionError or TimeoutError if that is
        unknown.
        """
        match understood(machine, self.ask(program, mark)):
            case "fenced":
                return False
            case "workspace_gone":
                raise gone(machine.host, workspace)
            case "workspace_link":
                raise replaced(machine.host, workspace, "pccpipe runs no command through it")
            case _:
                return True

    def ready(self, timeout: float) -> list[Stream]:
        """Wait up to `timeout` seconds for output; return the streams that have some."""
        return [stream for stream, unread in self._unread.items() if unread] or self._readable(timeout)

    def read(self, stream: Stream) -> bytes:
        """Read the available output of a stream; empty if the lane has ended. Raises ConnectionError."""
        data, self._unread[stream] = self._unread[stream], b""
        data = data or self._receive(stream)
        self._received[stream] += len(data)
        return data

    def _opened(self, machine: Machine, program: bytes, mark: str) -> str:
        try:
            answer = understood(machine, self.ask(program, mark))
            # The start-up files of the login may have printed before.
            self._read_until(Stream.STDERR, b"\x1e" + mark.encode() + b"\n")
            return answer
        except BaseException:
            self.close()
            raise


def understood(machine: Machine, answer: str) -> str:
    """Return a lane's answer, unless it is a refusal. Raises `Unavailable`, `Lost`."""
    word, _, words = answer.partition(" ")
    match word:
        case "missing":
            lacks, _, install = words.strip().partition("; install: ")
            hint = f"pccpipe needs Linux with GNU coreutils and grep there: {install}"
            raise Unavailable(Reason.SHELL_MISSING, f"{machine.host} lacks: {lacks}", hint)
        case "refused":
            raise cannot_write(machine.host, words.strip())
        case "removed":
            raise Lost(f"{machine.host}: the folder {words.strip()} was removed during the run")
        case "gone":
            raise Lost(f"{machine.host} no longer knows the command")
        case _:
            return answer
