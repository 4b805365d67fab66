"""Turns on a VM with an account for steps: its `on: vm` commands and its containers never run at the same time.

Containers run as the same account, so a process that a command left could reach into them. Between the two, and after
the last of several commands, pccpipe kills every process of the account.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum

from pccpipe.detached import programs
from pccpipe.detached.as_account import processes_left
from pccpipe.detached.programs import RunDir
from pccpipe.errors import Lost, Unavailable
from pccpipe.machine.base import Machine
from pccpipe.machine.retry import reconnecting
from pccpipe.outcome import Reason
from pccpipe.target import Chunk, Exit, Isolation, Running, Token

SWEEP_TIMEOUT = 30.0
"""Seconds for the machine's answer. The sweep itself takes at most 5."""
ENDED_KEPT = 256
"""Ended commands to remember: the machine may still be ending what they left."""
ASK_AGAIN = 0.5
ADOPTED_WITHIN = 600.0
"""Seconds in which a resumed run attaches to its earlier commands. After that, a sweep kills the others."""


class CommandKind(StrEnum):
    COMMAND = "command"
    CONTAINER = "container"


class Turns:
    """The turns of one run on one machine. Safe from many threads.

    Args:
        place: the folder of the run's commands; it has an account.
        containers: returns the ids of the run's running containers. Raises `Unavailable`.
        services: returns the ids of the containers of its services, which a sweep spares: a user in an image may have
            the account's number.
        resumes: whether an earlier process of the run may have begun some.
    """

    def __init__(
        self,
        machine: Machine,
        place: RunDir,
        containers: Callable[[], Sequence[str]] = lambda: (),
        services: Callable[[], Sequence[str]] = lambda: (),
        *,
        resumes: bool,
    ) -> None:
        self._adopts_until = time.monotonic() + ADOPTED_WITHIN if resumes else 0.0
        self._machine = machine
        self._place = place
        self._containers = containers
        self._services = services
        self._changed = threading.Condition()
        self._active: dict[CommandKind, set[str]] = {kind: set() for kind in CommandKind}
        self._ended: deque[str] = deque(maxlen=ENDED_KEPT)
        # The code that makes a new run's folders sweeps its account.
        self._is_clean = not resumes
        self._starting: set[str] = set()
        """Containers that had their turn and do not run yet."""
        self._at_work = 0
        self._is_due = False
        """True if a sweep waits for the end of pccpipe's own work."""

    def begin(self, kind: CommandKind, command_id: str) -> None:
        """Wait for the other kind to end, and sweep the account. Raises `Unavailable`, also if a process survives."""
        with self._changed:
            while not self._may_begin(kind):
                self._changed.wait(ASK_AGAIN)
            self._active[kind].add(command_id)
            if kind is CommandKind.CONTAINER:
                self._starting.add(command_id)

    def started(self, command_id: str) -> None:
        """Record that a command or container runs."""
        with self._changed:
            self._starting.discard(command_id)
            self._changed.notify_all()

    def go_on(self, kind: CommandKind, command_id: str) -> None:
        """Record that this process follows what an earlier process of the run began."""
        with self._changed:
            if kind is CommandKind.COMMAND and self._is_clean:
                return  # it ended before the sweep, and a container may start now
            self._active[kind].add(command_id)

    def end(self, kind: CommandKind, command_id: str) -> None:
        """Record an end, and sweep. Raises `Unavailable` with PROCESSES_LEFT if a process survives."""
        with self._changed:
            if command_id not in self._active[kind]:
                return
            self._active[kind].discard(command_id)
            self._changed.notify_all()
            if kind is CommandKind.CONTAINER:
                return
            self._is_clean = False
            self._ended.append(command_id)
            self._sweep_if_idle()

    def let_go(self, kind: CommandKind, command_id: str) -> None:
        """Record that this process stops following it; it may go on."""
        with self._changed:
            if command_id not in self._active[kind]:
                return
            self._active[kind].discard(command_id)
            self._starting.discard(command_id)
            self._is_clean = False
            self._changed.notify_all()

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Keep sweeps away from pccpipe's own process that runs as the account within the block."""
        with self._changed:
            self._at_work += 1
        try:
            yield
        finally:
            with self._changed:
                self._at_work -= 1
                self._changed.notify_all()
                if self._is_due:
                    # A process that survives stops the next command that begins.
                    with contextlib.suppress(Unavailable, OSError):
                        self._sweep_if_idle()

    def _sweep_if_idle(self) -> None:
        """Sweep, or leave that to the next that begins. Raises `Unavailable` with PROCESSES_LEFT."""
        self._is_due = self._at_work > 0
        if self._active[CommandKind.COMMAND] or self._starting or self._at_work:
            return
        try:
            self._sweep()
        except Unavailable as error:
            if error.reason is Reason.PROCESSES_LEFT:
                raise
            # The machine is away: the next that begins sweeps.

    def _may_begin(self, kind: CommandKind) -> bool:
        """Sweep the account if that is due; return whether such a command or container may begin now."""
        other = CommandKind.CONTAINER if kind is CommandKind.COMMAND else CommandKind.COMMAND
        if self._active[other]:
            return False
        if kind is CommandKind.COMMAND and self._adopts and self._containers():
            return False  # an earlier process began it, and its step will find it
        if kind is CommandKind.COMMAND and (self._active[kind] or self._is_clean):
            return True
        if self._starting or self._at_work:
            return False  # a sweep would kill pccpipe's own processes, or a container that just started
        return self._sweep()

    @property
    def _adopts(self) -> bool:
        """True if a command of an earlier process may still run that no step follows yet."""
        return time.monotonic() < self._adopts_until

    def _sweep(self) -> bool:
        """Kill the account's processes; return False if an earlier process's command still runs.

        Raises `Unavailable`, with PROCESSES_LEFT if a process survives.
        """
        spared = list(self._containers()) if self._adopts or self._active[CommandKind.CONTAINER] else []
        spared += self._services()
        script = programs.sweep(self._place, self._ended, spared, only_if_idle=self._adopts)
        done = reconnecting(self._machine, lambda: self._machine.run(script, SWEEP_TIMEOUT))
        state, _, names = done.stdout.decode(errors="replace").strip().partition(" ")
        if state == "busy":
            return False
        if state != "clean":
            words = names if state == "left" else done.stderr.decode(errors="replace").strip() or "no answer"
            assert self._place.account is not None
            raise processes_left(self._machine.host, self._place.account.name, words)
        self._is_clean = True
        return True


class TakingTurns:
    """A `Running` that keeps its turn until its end is read."""

    def __init__(self, running: Running, turns: Turns, kind: CommandKind, command_id: str) -> None:
        self._running = running
        self._turns = turns
        self._kind = kind
        self._command_id = command_id
        turns.started(command_id)

    @property
    def token(self) -> Token:
        return self._running.token

    @property
    def isolation(self) -> Isolation:
        return self._running.isolation

    def read(self, timeout: float) -> Chunk | Exit | None:
        try:
            got = self._running.read(timeout)
        except Lost:
            self._turns.let_go(self._kind, self._command_id)
            raise
        if isinstance(got, Exit):
            self._turns.end(self._kind, self._command_id)
        return got

    def may_skip(self, beginning: int, ending: int) -> None:
        self._running.may_skip(beginning, ending)

    def cpu_seconds(self) -> float | None:
        return self._running.cpu_seconds()

    def stop(self, grace: float) -> None:
        self._running.stop(grace)

    def fetch(self, name: str, limit: int) -> bytes:
        with self._turns.working():
            return self._running.fetch(name, limit)

    def let_go(self) -> None:
        self._turns.let_go(self._kind, self._command_id)
        self._running.let_go()

    def discard(self) -> None:
        self._turns.let_go(self._kind, self._command_id)
        self._running.discard()
