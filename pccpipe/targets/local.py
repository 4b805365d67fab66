"""Runs commands on this machine, in the run's local workspace."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from pccpipe.detached.commands import Detached
from pccpipe.detached.programs import KILL_AFTER, RunDir
from pccpipe.detached.proxy_port import ProxyPort
from pccpipe.layout import LANE
from pccpipe.machine.base import ByteStream, ProxyRoute
from pccpipe.machine.local import LocalMachine
from pccpipe.outcome import Place
from pccpipe.supervisor import processes
from pccpipe.supervisor.supervised import Supervised
from pccpipe.target import Command, ContainerSettings, Isolation, Running, Token

LIMIT = 32
"""Commands at a time. The supervisor holds five descriptors for each, and macOS gives it 256."""


class LocalTarget:
    """A `Target`. Its commands survive pccpipe, and a later process can attach to them.

    Args:
        state_dir: the folder for the files of the run's commands; `close` removes it.
        workspace: gives the folder in which the next command works.
        withheld: environment variables that commands do not inherit.
        kill_after: seconds between TERM and KILL when a command's own limit passes.
        accept: serves a command that connects to the proxy.
    """

    def __init__(
        self,
        run_id: str,
        state_dir: Path,
        workspace: Callable[[], Path],
        withheld: frozenset[str] = frozenset(),
        kill_after: float = KILL_AFTER,
        accept: Callable[[ByteStream], None] | None = None,
    ) -> None:
        self._machine = LocalMachine(withheld)
        state = RunDir(run_id, str(state_dir.absolute()))
        self._proxy_port = ProxyPort(self._machine, ProxyRoute(self._machine, accept), state) if accept else None
        self._workspace = workspace
        self._supervised = Supervised(self._machine, state, limit=LIMIT, kill_after=kill_after)
        self._state, self._kill_after = state, kill_after
        self._lanes: Detached | None = None

    def open(self) -> None:
        self._supervised.open()

    def probe(self, container: ContainerSettings | None) -> None:  # noqa: ARG002 - no container here
        self.open()

    def take_over(self) -> None:
        self._supervised.take_over()

    def start(self, command: Command) -> Running:
        workspace = self._folder_of(command)
        # Git must search no further up than the workspace, which may be a folder of a larger repository. For the run's
        # copy, fence.py also ensures that.
        above = str(Path(os.path.realpath(workspace)).parent)
        command = replace(command, env={"GIT_CEILING_DIRECTORIES": above, **command.env})
        if command.is_proxied and self._proxy_port:
            command = self._proxy_port.with_proxy(command)
        return self._supervised.start(command, workspace, self._isolation(workspace))

    def find(self, command: Command) -> Running | None:
        if command.is_proxied and self._proxy_port:
            self._proxy_port.reopen()
        isolation = self._isolation(self._folder_of(command))
        found = self._supervised.find(command.id, isolation)
        return found or (self._earlier.find(command.id, isolation) if self._has_lanes() else None)

    def attach(self, token: Token) -> Running:
        if self._proxy_port:
            self._proxy_port.reopen()
        isolation = self._isolation(str(self._workspace().absolute()))
        return self._earlier.attach(token, isolation) if "lane" in token else self._supervised.attach(token, isolation)

    def leave(self) -> None:
        if self._proxy_port:
            self._proxy_port.close()
        if self._lanes:
            self._lanes.leave()
        self._supervised.leave()

    def close(self) -> tuple[str, ...]:
        if self._proxy_port:
            self._proxy_port.close()
        if self._lanes:
            # The supervisor's `close` removes their files.
            self._lanes.leave()
        return self._supervised.close()

    def _folder_of(self, command: Command) -> str:
        return command.workspace or str(self._workspace().absolute())

    def _has_lanes(self) -> bool:
        return any(Path(self._state.state).glob(f"{LANE}*"))

    @property
    def _earlier(self) -> Detached:
        """The shell lanes of earlier versions: in a resumed run one may still run a command."""
        self._lanes = self._lanes or Detached(self._machine, self._state, limit=LIMIT, kill_after=self._kill_after)
        return self._lanes

    def _isolation(self, workspace: str) -> Isolation:
        facts = self._machine.facts
        user = f"{facts.uid}:{facts.gid}"
        at_hand = facts.has_engine
        return Isolation(
            Place.LOCAL,
            self._machine.host,
            user,
            workspace=workspace,
            login=facts.user,
            engine_at_hand=at_hand,
            escapes_unseen=not processes.can_look(),
        )
