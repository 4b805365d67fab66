"""Who works on a VM whose code runs as an account of its own: its `on: vm` commands or its containers, never both.

Containers run as the same account, so that a process that a command left could reach into them. Between the two, and
when the last command of several has ended, every process of the account is killed.
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
"""Seconds for the machine's answer; the sweep itself takes at most 5."""
ENDED_KEPT = 256
"""Commands that are over, as the machine may still see to the end of what they left."""
ASK_AGAIN = 0.5
ADOPTED_WITHIN = 600.0
"""Seconds in which a resumed run follows again what it had begun; what still goes on then is nobody's, and is swept."""


class CommandKind(StrEnum):
    COMMAND = "command"
    CONTAINER = "container"


class Turns:
    """Safe from many threads.

    Args:
        place: of the run's commands on the machine; it has an account.
        containers: the ids of the run's containers that run now. Raises `Unavailable`.
        resumes: whether an earlier process of the run may have begun some.
    """

    def __init__(
        self,
        machine: Machine,
        place: RunDir,
        containers: Callable[[], Sequence[str]] = lambda: (),
        *,
        resumes: bool,
    ) -> None:
        self._adopts_until = time.monotonic() + ADOPTED_WITHIN if resumes else 0.0
        self._machine = machine
        self._place = place
        self._containers = containers
        self._changed = threading.Condition()
        self._active: dict[CommandKind, set[str]] = {kind: set() for kind in CommandKind}
        self._ended: deque[str] = deque(maxlen=ENDED_KEPT)
        # A new run's account was swept when its folders were made.
        self._is_clean = not resumes
        self._starting: set[str] = set()
        """Containers that have begun and do not run yet."""
        self._at_work = 0
        self._is_due = False
        """Whether a sweep waits for the end of that work."""

    def begin(self, kind: CommandKind, command_id: str) -> None:
        """Wait for the other kind's end, and sweep the account. Raises `Unavailable`: also for what can't be killed."""
        with self._changed:
            while not self._may_begin(kind):
                self._changed.wait(ASK_AGAIN)
            self._active[kind].add(command_id)
            if kind is CommandKind.CONTAINER:
                self._starting.add(command_id)

    def begun(self, command_id: str) -> None:
        """It runs now."""
        with self._changed:
            self._starting.discard(command_id)
            self._changed.notify_all()

    def go_on(self, kind: CommandKind, command_id: str) -> None:
        """A command or container that an earlier process of the run began is followed here."""
        with self._changed:
            if kind is CommandKind.COMMAND and self._is_clean:
                return  # it had ended before the sweep: what is there now may be the start of a container
            self._active[kind].add(command_id)

    def end(self, kind: CommandKind, command_id: str) -> None:
        """It has ended. Raises `Unavailable` with PROCESSES_LEFT for what it left and can't be killed."""
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
        """Nobody follows it any more, and it may go on."""
        with self._changed:
            if command_id not in self._active[kind]:
                return
            self._active[kind].discard(command_id)
            self._starting.discard(command_id)
            self._is_clean = False
            self._changed.notify_all()

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Within the block something of pccpipe's own runs as the account: no sweep is to take that."""
        with self._changed:
            self._at_work += 1
        try:
            yield
        finally:
            with self._changed:
                self._at_work -= 1
                self._changed.notify_all()
                if self._is_due:
                    # What cannot be killed stops whatever begins next.
                    with contextlib.suppress(Unavailable, OSError):
                        self._sweep_if_idle()

    def _sweep_if_idle(self) -> None:
        """Raises `Unavailable` with PROCESSES_LEFT."""
        self._is_due = self._at_work > 0
        if self._active[CommandKind.COMMAND] or self._starting or self._at_work:
            return  # what cannot be swept now is swept before the next that begins
        try:
            self._sweep()
        except Unavailable as error:
            if error.reason is Reason.PROCESSES_LEFT:
                raise
            # The machine is away: whatever begins next sweeps.

    def _may_begin(self, kind: CommandKind) -> bool:
        """Say whether it may begin now, with the account swept if that is due."""
        other = CommandKind.CONTAINER if kind is CommandKind.COMMAND else CommandKind.COMMAND
        if self._active[other]:
            return False
        if kind is CommandKind.COMMAND and self._adopts and self._containers():
            return False  # one that was begun before, and whose step will find it
        if kind is CommandKind.COMMAND and (self._active[kind] or self._is_clean):
            return True
        if self._starting or self._at_work:
            return False  # the sweep would take what is done for them as the account, or what has only just started
        return self._sweep()

    @property
    def _adopts(self) -> bool:
        """Say whether something may go on that an earlier process of the run began, and that no step follows yet."""
        return time.monotonic() < self._adopts_until

    def _sweep(self) -> bool:
        """Say whether the account is clean now; not if a command goes on that an earlier process of the run began."""
        spared = list(self._containers()) if self._adopts or self._active[CommandKind.CONTAINER] else []
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
    """A `Running` that has its turn until its end was read."""

    def __init__(self, running: Running, turns: Turns, kind: CommandKind, command_id: str) -> None:
        self._running = running
        self._turns = turns
        self._kind = kind
        self._command_id = command_id
        turns.begun(command_id)

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
