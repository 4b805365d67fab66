"""The lanes of a run on one machine: opened when needed, used again and again, at most so many at a time."""

from __future__ import annotations

import contextlib
import shlex
import threading

from pccpipe.detached import programs
from pccpipe.detached.control import Control
from pccpipe.detached.lane import Lane
from pccpipe.detached.programs import RunDir
from pccpipe.detached.slots import Slots
from pccpipe.errors import Lost
from pccpipe.machine.base import Machine, left_there
from pccpipe.machine.retry import UNREACHABLE, reconnecting, retrying

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
        self._slots = Slots[Lane](machine.host, limit)
        self._lock = threading.Lock()
        self._discarded: list[str] = []

    def take(self, timeout: float) -> Lane:
        """A lane for one command; `give_back` or `retire` it afterwards. Raises `Unavailable`."""
        self._slots.take(timeout)
        if idle := self._slots.idle():
            return idle
        try:
            return reconnecting(self.machine, lambda: Lane.open(self.machine, self.place))
        except BaseException:
            self._slots.free()
            raise

    def adopt(self) -> None:
        """Count a lane of another process, whose command is followed here; `retire` it afterwards."""
        self._slots.adopt()

    def give_back(self, lane: Lane) -> None:
        """The lane's command has ended, and nothing holds its FIFOs."""
        if lane.is_full:
            lane.close()
            self.retire(lane.folder)
            return
        self._slots.keep(lane)
        self._slots.free()

    def retire(self, folder: str | None) -> None:
        """A lane is closed already, must not be used again, and nothing in its folder, if given, is wanted any more."""
        if folder:
            with contextlib.suppress(*UNREACHABLE):
                self.control.send(programs.discard_lane(folder))
        self._slots.free()

    def discard(self, command_id: str) -> None:
        """Remove what is kept of a command. Soon: `rm` costs 1 ms, and takes many at once for that."""
        with self._lock:
            self._discarded.append(command_id)
            # What an account's command left in its HOME is not for the next one to read.
            if len(self._discarded) < DISCARD_AT_ONCE and self.place.account is None:
                return
            discarded, self._discarded = self._discarded, []
        with contextlib.suppress(*UNREACHABLE):
            self.control.send(programs.discard(discarded))

    def leave(self) -> bool:
        """Close what is open here; all that the run has on the machine stays. False if it was done before."""
        if not self._slots.close():
            return False
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
