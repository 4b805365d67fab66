"""Runs commands on this machine, in the run's workspace at home."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pccpipe.outcome import Place
from pccpipe.shell.detached import Detached
from pccpipe.shell.here import Here
from pccpipe.shell.programs import KILL_AFTER
from pccpipe.shell.programs import Place as StatePlace
from pccpipe.targets.base import Command, Isolation, Running, Token

LIMIT = 32
"""Commands at a time: each has three processes of ours beside it."""


class LocalTarget:
    """A `Target`. Commands go on if pccpipe is killed, and can be attached to.

    Args:
        state_dir: a folder of the run's own for what is kept of its commands; it is made, and removed by `close`.
        workspace: gives the folder in which the next command works.
        withheld: environment variables that commands do not inherit.
        kill_after: seconds between TERM and KILL when a command's own limit passes.
    """

    def __init__(
        self,
        run_id: str,
        state_dir: Path,
        workspace: Callable[[], Path],
        withheld: frozenset[str] = frozenset(),
        kill_after: float = KILL_AFTER,
    ) -> None:
        self._machine = Here(withheld)
        self._workspace = workspace
        self._detached = Detached(
            self._machine, StatePlace(run_id, str(state_dir.absolute())), limit=LIMIT, kill_after=kill_after
        )

    def open(self) -> None:
        self._detached.open()

    def take_over(self) -> None:
        self._detached.take_over()

    def start(self, command: Command) -> Running:
        workspace = str(self._workspace().absolute())
        return self._detached.start(command, workspace, self._isolation(workspace))

    def find(self, command: Command) -> Running | None:
        return self._detached.find(command.id, self._isolation(str(self._workspace().absolute())))

    def attach(self, token: Token) -> Running:
        return self._detached.attach(token, self._isolation(str(self._workspace().absolute())))

    def close(self) -> None:
        self._detached.close()

    def _isolation(self, workspace: str) -> Isolation:
        facts = self._machine.facts
        return Isolation(Place.LOCAL, self._machine.host, f"{facts.uid}:{facts.gid}", workspace=workspace)
