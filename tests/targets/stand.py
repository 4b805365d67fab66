"""A target under test, and a way past it to the machine that it runs on."""

from __future__ import annotations

import itertools
import random
import subprocess
import time
from collections.abc import Callable
from typing import Any

from pccpipe.detached.programs import RunDir
from pccpipe.outcome import Stream
from pccpipe.target import Chunk, Command, Exit, Running, Target

Result = tuple[bytes, bytes, Exit]


class Stand:
    """The parts of a target that the shared tests need.

    Args:
        target: opened.
        again: makes another target for the same run, as a new pccpipe process would.
        shell: runs a shell command on the target's machine, not through the target.
        state: where the target keeps what it knows of commands, on its machine.
        workspace: the folder in which commands work, as they see it.
        fields: of `Command`, for every command.
    """

    def __init__(
        self,
        run_id: str,
        target: Target,
        again: Callable[[], Target],
        shell: Callable[[str], str],
        state: str,
        workspace: str,
        fields: dict[str, Any] | None = None,
    ) -> None:
        self.run_id = run_id
        self.target = target
        self.again = again
        self.shell = shell
        self.state = state
        self.workspace = workspace
        self._fields = fields or {}
        self._serials = itertools.count(1)
        self.nap = f"{random.randrange(10**7, 10**8)}"
        """The seconds of its `sleep` calls: unique, so that the test can find its processes."""

    def command(self, script: str, **fields: Any) -> Command:
        """Make a command with the given fields of `Command`."""
        serial = next(self._serials)
        known = {"id": f"step-{serial}", "step": "step", "serial": serial, **self._fields, **fields}
        return Command(script=script, **known)

    def start(self, script: str, **fields: Any) -> Running:
        return self.target.start(self.command(script, **fields))

    def run(self, script: str, **fields: Any) -> Result:
        """Run a script to its end; return its stdout, its stderr, and its exit."""
        running = self.start(script, **fields)
        try:
            return read_all(running)
        finally:
            running.discard()

    def naps(self) -> int:
        """Count the processes on the machine that sleep for `nap` seconds."""
        return len(self.shell(f"pgrep -fx 'sleep {self.nap}' || true").split())

    def processes(self) -> list[str]:
        """List this run's processes on the machine: those of the commands, and the target's own."""
        tag = f"PCCPIPE_STEP={RunDir(self.run_id, self.state).tag}/"
        paths = self.shell(f"grep -lF {tag} /proc/[0-9]*/environ 2>/dev/null || true").split()
        return [self.shell(f"tr '\\0' ' ' <{path.replace('environ', 'cmdline')} || true") for path in paths]


def read_all(running: Running, limit: float = 60.0) -> Result:
    """Read to the end; return stdout, stderr, and the exit."""
    output = {stream: bytearray() for stream in Stream}
    exit_ = read_into(running, lambda chunk: output[chunk.stream].extend(chunk.data), limit)
    return bytes(output[Stream.STDOUT]), bytes(output[Stream.STDERR]), exit_


def read_into(running: Running, take: Callable[[Chunk], object], limit: float = 60.0) -> Exit:
    """Read to the end, and give each chunk to `take`."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        match running.read(1.0):
            case Chunk() as chunk:
                take(chunk)
            case Exit() as exit_:
                return exit_
            case None:
                pass
    raise TimeoutError(f"no end within {limit:g} s")


def read_until(running: Running, wanted: bytes, limit: float = 10.0) -> bytes:
    """Read until `wanted` appears on stdout; return stdout so far."""
    deadline = time.monotonic() + limit
    seen = b""
    while wanted not in seen:
        assert time.monotonic() < deadline, seen
        chunk = running.read(1.0)
        assert not isinstance(chunk, Exit), (chunk, seen)
        if chunk and chunk.stream is Stream.STDOUT:
            seen += chunk.data
    return seen


def until(met: Callable[[], bool], limit: float = 10.0) -> None:
    """Wait until a condition is true."""
    deadline = time.monotonic() + limit
    while not met():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


def local_shell(command: str) -> str:
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout
