"""Runs the commands of a run on a machine; they keep running without the connection, and without pccpipe."""

from __future__ import annotations

import re

from pccpipe.detached import programs
from pccpipe.detached.lane import Lane, new_mark
from pccpipe.detached.pool import Lanes
from pccpipe.detached.programs import KILL_AFTER, CommandRef, RunDir
from pccpipe.detached.running import LOST_AFTER, DetachedRunning
from pccpipe.errors import Lost, Nonsense, Refused, Unavailable, WorkspaceGone
from pccpipe.layout import LANE
from pccpipe.machine.answers import number
from pccpipe.machine.base import Machine
from pccpipe.machine.retry import DISCONNECTED, reconnecting, retrying
from pccpipe.target import Command, Isolation, Token

_MARK = re.compile("[0-9a-f]{32}")
DOUBT_LIMIT = 30.0
"""Seconds to find out whether a command began, when the connection broke at that moment."""


class Detached:
    """The commands of a run on one machine. Thread-safe.

    Args:
        limit: how many commands may run at a time; further ones wait.
        lost_after: seconds without an answer of the machine after which its commands count as lost.
        kill_after: seconds between TERM and KILL at the command's own time limit.
        owns_workspace: the workspace is pccpipe's own. A command begins only if it exists, and is not a link.
    """

    def __init__(
        self,
        machine: Machine,
        run_dir: RunDir,
        *,
        limit: int,
        lost_after: float = LOST_AFTER,
        kill_after: float = KILL_AFTER,
        owns_workspace: bool = False,
    ) -> None:
        self._machine = machine
        self._run_dir = run_dir
        self._lanes = Lanes(machine, run_dir, limit)
        self._lost_after = lost_after
        self._kill_after = kill_after
        self._owns_workspace = owns_workspace

    def open(self) -> None:
        """Make sure that commands can run. Raises `Unavailable`."""
        self._lanes.control.open()

    def take_over(self) -> None:
        """Make `close` also remove what another process of the run left here."""
        self._lanes.control.was_opened = True

    def start(self, command: Command, workspace: str, isolation: Isolation) -> DetachedRunning:
        """Begin a command in a workspace.

        Raises `Unavailable`, `Refused`, WorkspaceGone, but only if the command certainly never began.
        """
        while True:
            lane = self._lanes.take(command.limit)
            begun_on: Lane | None = lane
            ref = CommandRef(command.id, new_mark(), lane.folder, lane.offsets)
            gate = self._run_dir.gate
            try:
                program = programs.begin(
                    self._run_dir, ref, command, workspace, self._kill_after, is_own=self._owns_workspace
                )
                has_begun = lane.begin(self._machine, program, ref.mark, workspace)
            except DISCONNECTED:
                lane.close()
                if not self._may_have_begun(ref):
                    self._lanes.retire(ref.folder)
                    continue
                begun_on = None
            except (Unavailable, Refused, WorkspaceGone):
                self._lanes.give_back(lane)
                raise
            else:
                if not has_begun:
                    lane.close()
                    self._lanes.retire(None)
                    if gate is None:
                        raise Nonsense(self._machine.host, "report on a command", "fenced")
                    gate.check()
                    continue
                if gate:
                    gate.begun()
            return DetachedRunning(self._lanes, ref, isolation, begun_on, self._lost_after)

    def find(self, command_id: str, isolation: Isolation) -> DetachedRunning | None:
        """Find a command that another process of the run began without recording it. Raises `Unavailable`."""
        self._lanes.control.open()
        answer = reconnecting(
            self._machine, lambda: self._lanes.control.ask(lambda mark: programs.seek(mark, command_id))
        )
        if answer == "none":
            return None
        return self.attach(self._claimed(command_id, answer).token(), isolation)

    def _claimed(self, command_id: str, answer: str) -> CommandRef:
        """Read the claim of a command: its mark, the offsets of its output, its lane. Raises Nonsense."""
        match answer.split(" ", 3):
            case [mark, stdout, stderr, folder] if _MARK.fullmatch(mark) and self._is_lane(folder):
                host = self._machine.host
                offsets = number(host, "offset", stdout), number(host, "offset", stderr)
                return CommandRef(command_id, mark, folder, offsets)
            case _:
                raise Nonsense(self._machine.host, "claim of a command", answer)

    def _is_lane(self, folder: str) -> bool:
        return bool(re.fullmatch(re.escape(self._run_dir.state) + f"/{LANE}[0-9a-f]{{16}}", folder))

    def attach(self, token: Token, isolation: Isolation) -> DetachedRunning:
        """Follow a command that began earlier, from its first byte. Raises `Unavailable`, `Lost`."""
        ref = CommandRef.of(token)
        self._lanes.control.open()
        lane = reconnecting(
            self._machine,
            lambda: Lane.attached(self._machine, self._run_dir, ref.folder, ref.id, ref.offsets),
        )
        self._lanes.adopt()
        running = DetachedRunning(self._lanes, ref, isolation, None, self._lost_after)
        running.follow(lane)
        return running

    def leave(self) -> None:
        """Close what this process has open, and leave the run's things on the machine. Never raises."""
        self._lanes.leave()

    def close(self) -> tuple[str, ...]:
        """Remove everything of the run from the machine; return words on what is left. Idempotent; never raises."""
        return self._lanes.close()

    def _may_have_begun(self, ref: CommandRef) -> bool:
        """Return whether a command began although its lane broke; one that did not begin will never do so."""
        control = self._lanes.control
        try:
            answer = retrying(lambda: control.ask(lambda mark: programs.void(mark, ref.id, ref.mark)), DOUBT_LIMIT)
        except Lost:
            return True
        return answer != "void"
