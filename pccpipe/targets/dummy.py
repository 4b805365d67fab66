"""A target that plays a script: it tests the executor in milliseconds, and rehearses a pipeline.

target = DummyTarget(Place.VM, lambda command: Play(exit=Exit(3)) if command.step == "test" else Play())
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from msgspec import Struct, field

from pccpipe.errors import Lost, ResultError, ResultMissing, Unavailable
from pccpipe.outcome import Place, Stream
from pccpipe.target import Chunk, Command, ContainerSettings, Exit, Isolation, Running, Token


class Play(Struct, frozen=True):
    """The behaviour of one command. Times in seconds."""

    unavailable: Unavailable | None = None
    """`start` raises this, and nothing begins."""
    output: tuple[Chunk, ...] = ()
    lasts: float = 0.0
    exit: Exit = field(default_factory=lambda: Exit(0))
    ignores_term: bool = False
    lost: str | None = None
    """The words of the `Lost` that `read` raises in place of an exit."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """The files that it leaves in `PCC_OUT`."""
    cpu: float | None = None
    """The CPU seconds that it uses each second; None if that cannot be read."""
    had: Isolation | None = None
    """Its isolation, if that differs from the request."""


class DummyTarget:
    """Plays each command by `script`; keeps the commands, and the ids of those that nobody discarded in `left`."""

    def __init__(self, place: Place, script: Callable[[Command], Play] | None = None) -> None:
        self._place = place
        self._script = script or (lambda _: Play())
        self.commands: list[Command] = []
        self.left: set[str] = set()
        self.opened = 0
        self.closed = False
        self.leaves: tuple[str, ...] = ()
        """The words that `close` returns for what it could not remove."""

    def open(self) -> None:
        self.opened += 1

    def probe(self, container: ContainerSettings | None) -> None:
        play = self._script(Command("probe", "probe", 0, "", container=container))
        if play.unavailable:
            raise play.unavailable

    def take_over(self) -> None:
        """Do nothing: no play outlives its process."""

    def start(self, command: Command) -> Running:
        play = self._script(command)
        if play.unavailable:
            raise play.unavailable
        self.commands.append(command)
        self.left.add(command.id)
        return _Playing(play, command, self._place, self.left)

    def find(self, command: Command) -> Running | None:
        if command.id not in self.left:
            return None
        return _Playing(self._script(command), command, self._place, self.left)

    def attach(self, token: Token) -> Running:
        for command in self.commands:
            if command.id == token["id"]:
                return _Playing(self._script(command), command, self._place, self.left)
        raise Lost(f"no command {token['id']} is known")

    def leave(self) -> None:
        """Do nothing: nothing is open."""

    def close(self) -> tuple[str, ...]:
        self.closed = True
        return self.leaves


class _Playing:
    def __init__(self, play: Play, command: Command, place: Place, left: set[str]) -> None:
        self._play = play
        self._command = command
        self._place = place
        self._left = left
        self._pending = list(play.output)
        self._began = time.monotonic()
        self._end_at = self._began + play.lasts
        self._exit = play.exit
        self._changed = threading.Condition()

    @property
    def token(self) -> Token:
        return {"id": self._command.id}

    @property
    def isolation(self) -> Isolation:
        if self._play.had:
            return self._play.had
        container = f"dummy-{self._command.id}" if self._place is Place.CONTAINER else None
        return Isolation(self._place, "dummy", "1000:1000", container)

    def read(self, timeout: float) -> Chunk | Exit | None:
        with self._changed:
            if self._pending:
                return self._pending.pop(0)
            until = time.monotonic() + timeout
            while (now := time.monotonic()) < self._end_at:
                if now >= until:
                    return None
                self._changed.wait(min(until, self._end_at) - now)
            if self._play.lost is not None:
                raise Lost(self._play.lost)
            return self._exit

    def may_skip(self, beginning: int, ending: int) -> None:
        """Skip nothing: a script has little output."""

    def cpu_seconds(self) -> float | None:
        if self._play.cpu is None:
            return None
        return self._play.cpu * (time.monotonic() - self._began)

    def stop(self, grace: float) -> None:
        with self._changed:
            now = time.monotonic()
            code, name, after = (137, "KILL", grace) if self._play.ignores_term else (143, "TERM", 0.0)
            if now + after < self._end_at:
                self._end_at = now + after
                self._exit = Exit(code, name)
            self._changed.notify_all()

    def fetch(self, name: str, limit: int) -> bytes:
        if name not in self._play.files:
            raise ResultMissing(f"{name} is missing: the command left no such file in PCC_OUT")
        data = self._play.files[name]
        if len(data) > limit:
            raise ResultError(f"{name} has {len(data)} bytes; at most {limit} are taken")
        return data

    def let_go(self) -> None:
        """Do nothing: nothing is open."""

    def discard(self) -> None:
        self._left.discard(self._command.id)


def says(text: str, stream: Stream = Stream.STDOUT) -> Chunk:
    """Return a chunk of output, for a script."""
    return Chunk(stream, text.encode())
