"""Opens the lanes of a run on one machine when they are needed, and reuses them."""

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
"""The number of commands whose files it removes together."""
CLOSE_LIMIT = 15.0
"""Seconds without an answer at the end, after which the run leaves its things on the machine to `gc`."""


class Lanes:
    """The lanes of a run. Thread-safe.

    Args:
        limit: how many commands may run at a time; further ones wait.
    """

    def __init__(self, machine: Machine, run_dir: RunDir, limit: int) -> None:
        self.machine = machine
        self.run_dir = run_dir
        self.control = Control(machine, run_dir)
        self._slots = Slots[Lane](machine.host, limit)
        self._lock = threading.Lock()
        self._discarded: list[str] = []

    def take(self, timeout: float) -> Lane:
        """Return a lane for one command; `give_back` or `retire` it afterwards. Raises `Unavailable`."""
        self._slots.take(timeout)
        if idle := self._slots.idle():
            return idle
        try:
            return reconnecting(self.machine, lambda: Lane.open(self.machine, self.run_dir))
        except BaseException:
            self._slots.free()
            raise

    def adopt(self) -> None:
        """Count a lane of another process whose command this one follows; `retire` it afterwards."""
        self._slots.adopt()

    def give_back(self, lane: Lane) -> None:
        """Reuse a lane whose command has ended, and whose FIFOs no process holds."""
        if lane.is_full:
            lane.close()
            self.retire(lane.folder)
            return
        self._slots.keep(lane)
        self._slots.free()

    def retire(self, folder: str | None) -> None:
        """Give up a lane that is closed already, and remove its folder if that is given."""
        if folder:
            with contextlib.suppress(*UNREACHABLE):
                self.control.send(programs.discard_lane(folder))
        self._slots.free()

    def discard(self, command_id: str) -> None:
        """Remove a command's files, soon: an `rm` costs 1 ms for one command or for many."""
        with self._lock:
            self._discarded.append(command_id)
            # The next command must not read what an account's command left in its HOME.
            if len(self._discarded) < DISCARD_AT_ONCE and self.run_dir.account is None:
                return
            discarded, self._discarded = self._discarded, []
        with contextlib.suppress(*UNREACHABLE):
            self.control.send(programs.discard(discarded))

    def leave(self) -> bool:
        """Close what this process has open, and leave the rest. Return False if that was done before."""
        if not self._slots.close():
            return False
        self.control.close()
        return True

    def close(self) -> tuple[str, ...]:
        """End the lanes, and remove everything of the run from the machine. Never raises.

        Returns words on what it could not remove.
        """
        if not self.leave() or not self.control.was_opened:
            return ()
        state = self.run_dir.state
        script = f"({programs.end_run(self.run_dir)}\n)\n[ ! -e {shlex.quote(state)} ]"
        try:
            if retrying(lambda: self.machine.run(script, timeout=30.0), CLOSE_LIMIT).code == 0:
                return ()
        except Lost as lost:
            return (left_there(self.machine.host, f"the folder {state}", lost.words, "pccpipe gc"),)
        as_root = f"sudo rm -rf {shlex.quote(state)}, there"
        return (left_there(self.machine.host, f"the folder {state}", "", as_root),)
