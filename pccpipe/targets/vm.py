"""Runs commands on the project's VM, in the run's workspace there."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable

from pccpipe.detached.commands import Detached
from pccpipe.detached.programs import KILL_AFTER, RunDir
from pccpipe.detached.proxy_port import ProxyPort
from pccpipe.detached.running import LOST_AFTER, DetachedRunning
from pccpipe.layout import SystemDir
from pccpipe.machine.account import Account
from pccpipe.machine.base import Machine, ProxyRoute, cannot_write
from pccpipe.machine.gate import Gate
from pccpipe.machine.retry import reconnecting
from pccpipe.outcome import Place
from pccpipe.target import Command, ContainerSettings, Isolation, Running, Token
from pccpipe.targets.turns import CommandKind, TakingTurns, Turns

LIMIT = 6
"""Commands at a time. Each takes an SSH session, and sshd's MaxSessions is 10."""


class VmTarget:
    """A `Target`. Its commands outlive the connection, and pccpipe.

    Args:
        connection: the run's connection to the VM.
        root: the VM's folder for projects (`vm.root`).
        lost_after: seconds for which the VM may be unreachable before a command on it counts as lost.
        kill_after: seconds between TERM and KILL when a command's own limit passes.
        proxy: the way of commands to the proxy.
        account: the user who runs the commands, with its folders; None: the login.
        turns: when the commands may run; with an account.
        has_workspace: whether the run's copy of the code is on the VM already.
        gate: the way to the commands' files, while the VM is the run's.
    """

    def __init__(
        self,
        connection: Machine,
        run_id: str,
        root: str,
        lost_after: float = LOST_AFTER,
        kill_after: float = KILL_AFTER,
        proxy: ProxyRoute | None = None,
        account: Account | None = None,
        turns: Turns | None = None,
        has_workspace: Callable[[], bool] = lambda: False,
        gate: Gate | None = None,
    ) -> None:
        self.workspace = account.workspace if account else SystemDir.on_vm(root).workspace(run_id)
        """The run's copy of the code, on the VM."""
        self.state = SystemDir.on_vm(root).state(run_id)
        """The folder for all other files of the run on the VM, until `close`."""
        self._connection = connection
        self._account = account
        self._has_workspace = has_workspace
        place = RunDir(run_id, self.state, account, gate)
        self._turns = turns or (Turns(connection, place, resumes=True) if account else None)
        self._proxy_port = ProxyPort(connection, proxy, place) if proxy else None
        self._detached = Detached(
            connection, place, limit=LIMIT, lost_after=lost_after, kill_after=kill_after, owns_workspace=True
        )
        self._lock = threading.Lock()
        self._is_open = False

    def open(self) -> None:
        with self._lock:
            if not self._is_open:
                self._make_workspace()
                self._detached.open()
                self._is_open = True

    def probe(self, container: ContainerSettings | None) -> None:  # noqa: ARG002 - no container here
        self.open()

    def take_over(self) -> None:
        self._detached.take_over()

    def start(self, command: Command) -> Running:
        if command.is_proxied and self._proxy_port:
            command = self._proxy_port.with_proxy(command)
        if self._turns is None:
            return self._detached.start(command, command.workspace or self.workspace, self._isolation(command))
        self._turns.begin(CommandKind.COMMAND, command.id)
        try:
            running = self._detached.start(command, command.workspace or self.workspace, self._isolation(command))
        except BaseException:
            self._turns.let_go(CommandKind.COMMAND, command.id)
            raise
        return TakingTurns(running, self._turns, CommandKind.COMMAND, command.id)

    def find(self, command: Command) -> Running | None:
        if command.is_proxied and self._proxy_port:
            self._proxy_port.reopen()
        running = self._detached.find(command.id, self._isolation(command))
        return running and self._going_on(running)

    def attach(self, token: Token) -> Running:
        if self._proxy_port:
            self._proxy_port.reopen()
        return self._going_on(self._detached.attach(token, self._isolation()))

    def _going_on(self, running: DetachedRunning) -> Running:
        if self._turns is None:
            return running
        command_id = str(running.token["id"])
        self._turns.go_on(CommandKind.COMMAND, command_id)
        return TakingTurns(running, self._turns, CommandKind.COMMAND, command_id)

    def leave(self) -> None:
        if self._proxy_port:
            self._proxy_port.close()
        self._detached.leave()

    def close(self) -> tuple[str, ...]:
        if self._proxy_port:
            self._proxy_port.close()
        return self._detached.close()

    def _make_workspace(self) -> None:
        if self._account:
            return  # it exists, and the login may not look into it
        folder = shlex.quote(self.workspace)
        # If a step removed it, an empty one would look like the code; `start` reports that.
        make = f"[ -d {folder} ] || exit 0" if self._has_workspace() else f"mkdir -p {folder}"
        script = f"export LC_ALL=C; {{ {make}; }} && [ -w {folder} ] && cd {folder}"
        made = reconnecting(self._connection, lambda: self._connection.run(script))
        if made.code:
            words = made.stderr.decode(errors="replace").strip() or f"{self.workspace} cannot be written"
            raise cannot_write(self._connection.host, words)

    def _isolation(self, command: Command | None = None) -> Isolation:
        host, account = self._connection.host, self._account
        workspace = (command and command.workspace) or self.workspace
        if account and not (command and command.as_login):
            return Isolation(
                Place.VM,
                host,
                account.user,
                workspace=workspace,
                engine_at_hand=account.has_engine,
                login=account.name,
            )
        facts = self._connection.facts
        user = f"{facts.uid}:{facts.gid}"
        return Isolation(Place.VM, host, user, workspace=workspace, engine_at_hand=facts.has_engine, login=facts.user)
