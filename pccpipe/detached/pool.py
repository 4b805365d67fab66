"""The lanes of a run on one machine: opened when needed, used again and again, at most so many at a time."""

from __future__ import annotations

import contextlib
import shlex
import threading
import time

from pccpipe.detached import programs
from pccpipe.detached.control import Control
from pccpipe.detached.lane import Lane
from pccpipe.detached.programs import RunDir
from pccpipe.errors import Lost, Unavailable
from pccpipe.machine.base import Machine, left_there
from pccpipe.machine.retry import UNREACHABLE, reconnecting, retrying
from pccpipe.outcome import Reason

DISCARD_AT_ONCE = 32
"""Commands whose files are removed together."""
CLOSE_LIMIT = 15.0
"""Seconds for which the machine may stay away at the end before what the run has there is left to `gc`."""


class Lanes:
    """Safe from many threads.

    Args:
        limit: how many commands may run at a time; further ones wait.
    """

    def __init__(self, machine: Machine, place: RunDir, limit: int) -> None:
        self.machine = machine
        self.place = place
        self.control = Control(machine, place)
        self._limit = limit
        self._changed = threading.Condition()
        self._idle: list[Lane] = []
        self._in_use = 0
        self._discarded: list[str] = []
        self._closed = False

    def take(self, timeout: float) -> Lane:
        """A lane for one command; `give_back` or `retire` it afterwards. Raises `Unavailable`."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while self._in_use >= self._limit and not self._closed:
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    words = f"{self.machine.host}: {self._limit} commands ran at a time for {timeout:g} s"
                    raise Unavailable(Reason.START_REFUSED, words)
            if self._closed:
                raise Unavailable(Reason.START_REFUSED, "the run has ended")
            self._in_use += 1
            idle = self._idle.pop() if self._idle else None
        if idle:
            return idle
        try:
            return reconnecting(self.machine, lambda: Lane.open(self.machine, self.place))
        except BaseException:
            self._let_in_next()
            raise

    def adopt(self) -> None:
        """Count a lane of another process, whose command is followed here; `retire` it afterwards."""
        with self._changed:
            self._in_use += 1

    def give_back(self, lane: Lane) -> None:
        """The lane's command has ended, and nothing holds its FIFOs."""
        if lane.is_full:
            lane.close()
            self.retire(lane.folder)
            return
        with self._changed:
            if self._closed:
                lane.close()
            else:
                self._idle.append(lane)
        self._let_in_next()

    def retire(self, folder: str | None) -> None:
        """A lane is closed already, must not be used again, and nothing in its folder, if given, is wanted any more."""
        if folder:
            with contextlib.suppress(*UNREACHABLE):
                self.control.send(programs.discard_lane(folder))
        self._let_in_next()

    def discard(self, command_id: str) -> None:
        """Remove what is kept of a command. Soon: `rm` costs 1 ms, and takes many at once for that."""
        with self._changed:
            self._discarded.append(command_id)
            # What an account's command left in its HOME is not for the next one to read.
            if len(self._discarded) < DISCARD_AT_ONCE and self.place.account is None:
                return
            discarded, self._discarded = self._discarded, []
        with contextlib.suppress(*UNREACHABLE):
            self.control.send(programs.discard(discarded))

    def leave(self) -> bool:
        """Close what is open here; all that the run has on the machine stays. False if it was done before."""
        with self._changed:
            if self._closed:
                return False
            self._closed = True
            idle, self._idle = self._idle, []
            self._changed.notify_all()
        for lane in idle:
            lane.close()
        self.control.close()
        return True

    def close(self) -> tuple[str, ...]:
        """End the lanes, and with them everything of the run on the machine, if anything can be there. Never raises.

        Gives what could not be removed, in words.
        """
        if not self.leave() or not self.control.was_opened:
            return ()
        state = self.place.state
        script = f"({programs.end_run(self.place)}\n)\n[ ! -e {shlex.quote(state)} ]"
        try:
            if retrying(lambda: self.machine.run(script, timeout=30.0), CLOSE_LIMIT).code == 0:
                return ()
        except Lost as lost:
            return (left_there(self.machine.host, f"the folder {state}", lost.words, "pccpipe gc"),)
        as_root = f"sudo rm -rf {shlex.quote(state)}, there"
        return (left_there(self.machine.host, f"the folder {state}", "", as_root),)

    def _let_in_next(self) -> None:
        with self._changed:
            self._in_use -= 1
            self._changed.notify()
