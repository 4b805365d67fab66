"""Runs each command in a fresh container of its own, on the engine of a machine: the VM's, or this one's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pccpipe import layout
from pccpipe.cancel import Halt
from pccpipe.detached.programs import KILL_AFTER, RunDir
from pccpipe.detached.running import LOST_AFTER
from pccpipe.docker_api import relay
from pccpipe.docker_api.engine import DockerEngine
from pccpipe.docker_api.isolation import part
from pccpipe.docker_api.networks import BRIDGE, Networks
from pccpipe.docker_api.service_settings import SERVICE_LABEL
from pccpipe.docker_api.settings import IN, PROXY, container_name
from pccpipe.errors import Fenced, Lost, Refused, Unavailable
from pccpipe.machine.account import Account
from pccpipe.machine.base import Listener, Machine, ProxyRoute, left_there
from pccpipe.machine.gate import Gate, plain
from pccpipe.machine.haltable import until_halted
from pccpipe.machine.retry import UNREACHABLE, retrying
from pccpipe.outcome import Place, Reason
from pccpipe.target import Command, ContainerSettings, Running, Token
from pccpipe.targets.container_exit import ContainerRef
from pccpipe.targets.container_files import ContainerFiles
from pccpipe.targets.container_start import ContainerStarter
from pccpipe.targets.known_images import KnownImages
from pccpipe.targets.services import EngineServices
from pccpipe.targets.turns import CommandKind, TakingTurns, Turns
from pccpipe.values import Json

BUSY_LIMIT, BUSY_PAUSE = 4.0, 1.0
"""Seconds for which pccpipe retries to remove a container that the engine calls busy, and between two tries."""
CLOSE_LIMIT = 15.0
"""Seconds for which the engine may stay away at the end; then the rest is left to `gc`."""


class ContainerTarget:
    """A `Target`. A container goes on without the connection, and is removed when its command is discarded.

    Args:
        machine: where the engine runs.
        state: the run's folder for all but the workspace, on that machine; `close` removes what was made in it.
        workspace: gives the workspace's folder, on that machine.
        socket: of the engine, on that machine; None: the one that the machine names.
        lost_after: seconds for which the engine may stay away before a command counts as lost.
        kill_after: seconds between TERM and KILL when a command's own limit passes.
        proxy: the way of commands to the proxy.
        account: the user in the containers, and the workspace's owner; None: the workspace's owner.
        turns: when a container may run; with an account.
        gate: the way to the commands' files, while the machine is the run's.
        root: the machine's folder for projects, if it has one; the workspace is pccpipe's own then.
        has_workspace: whether the run's copy of the code is there already.
        outside: the places whose commands reach the machine's loopback ports.
    """

    def __init__(
        self,
        machine: Machine,
        run_id: str,
        state: str,
        workspace: Callable[[], str],
        socket: str | None = None,
        lost_after: float = LOST_AFTER,
        kill_after: float = KILL_AFTER,
        proxy: ProxyRoute | None = None,
        account: Account | None = None,
        turns: Turns | None = None,
        gate: Gate | None = None,
        root: str | None = None,
        has_workspace: Callable[[], bool] = lambda: False,
        outside: frozenset[Place] = frozenset({Place.VM}),
    ) -> None:
        self._machine = machine
        self._run_id = run_id
        self._run_dir = RunDir(run_id, state, gate=gate)
        self._workspace = workspace
        self._turns = turns
        self._engine = DockerEngine(machine, socket)
        self._images = KnownImages(machine, root)
        self._files = ContainerFiles(self._engine, self._run_dir, account, root, has_workspace, kill_after)
        self._starter = ContainerStarter(self._engine, run_id, workspace, self._images, account, lost_after, kill_after)
        self._networks = Networks(self._engine)
        self.services = EngineServices(self._engine, self._run_dir, outside, lost_after, self._check_ours)
        """Starts services on the engine."""
        self._proxy = proxy
        self._proxy_is_open_to_all = account is not None
        self._proxy_lock = threading.Lock()
        self._listener: Listener | None = None
        self._used = False
        self._is_closed = False

    def open(self) -> None:
        self._engine.open()
        self._used = True

    def probe(self, container: ContainerSettings | None) -> None:
        assert container is not None
        self.open()
        if not self._engine.has_image(container.image):
            raise Unavailable(
                Reason.IMAGE_MISSING, f"the engine of {self._machine.host} has no image {container.image}"
            )

    def take_over(self) -> None:
        self._used = True
        self.services.take_over()

    def gives_sign(self) -> bool:
        """Ask the engine for a sign of life, and wait for that; return whether one came."""
        return self._engine.gives_sign()

    def start(self, command: Command) -> Running:
        self._engine.open()
        if self._turns is None:
            return self._start(command)
        self._turns.begin(CommandKind.CONTAINER, command.id)
        try:
            return TakingTurns(self._start(command), self._turns, CommandKind.CONTAINER, command.id)
        except BaseException:
            self._turns.let_go(CommandKind.CONTAINER, command.id)
            raise

    def _start(self, command: Command) -> Running:
        assert command.container is not None
        if any("\0" in value for value in (*command.env.values(), *command.secrets.values())):
            raise Refused("a NUL byte in its environment: no shell can take that")
        paths = self._files.paths(command, command.workspace or self._workspace())
        name = container_name(self._run_id, command)
        try:
            owner = self._files.lay_out(command, name, paths)
            self._images.begin()
            if command.is_proxied:
                self._open_proxy()
            hidden = self._files.hide(command, paths)
            has_git = self._files.has_git(command, paths, hidden)
            body = self._starter.body(command, owner, paths, hidden, has_git=has_git)
            self._check_open()
            ref = self._ref(command.id, self._starter.create(name, command, body), name)
            if command.network and command.container.network == BRIDGE:
                self._networks.join(BRIDGE, ref.container)
            if self._is_closed:
                ref.remove_quietly()
            self._check_open()
            running = self._starter.begin(ref, command)
        except Unavailable:
            self._check_gate()
            # A retry of the same command may run while another start removes the litter, so this is none.
            raise
        except BaseException:
            self._files.litter.append(command.id)
            raise
        if self._run_dir.gate:
            self._run_dir.gate.begun()
        return running

    def _ref(self, command_id: str, container: str, name: str) -> ContainerRef:
        return ContainerRef(self._engine, self._run_dir, command_id, container, name, self._files.litter)

    def _check_open(self) -> None:
        """Raise `Unavailable` for a start after `close`, as nobody would remove its container."""
        if self._is_closed:
            raise Unavailable(Reason.START_REFUSED, "the run has ended")

    def _check_gate(self) -> None:
        """After a failed start, raise `Fenced` if another run took the machine over; raise nothing else."""
        try:
            self._check_ours()
        except Fenced:
            raise
        except UNREACHABLE:
            return

    def _check_ours(self) -> None:
        """Raise `Fenced` if another run took the machine over, `Unavailable` if it is away."""
        gate = self._run_dir.gate
        if gate and self._machine.run(gate.test).code:
            gate.check()

    def find(self, command: Command) -> Running | None:
        self._engine.open()
        labels = {"pccpipe.run": self._run_id, "pccpipe.command": command.id}
        name, files = container_name(self._run_id, command), self._run_dir.file_of(command.id, "in")
        for container, mounts in self._engine.listed(labels).items():
            found = self._engine.inspect(container) or {}
            # A label proves nothing; a name is one container's at a time.
            if found.get("Name") != f"/{name}" or plain(mounts.get(IN, "")) != files:
                continue
            ref = self._ref(command.id, container, name)
            # An engine that is killed may forget that it started a container.
            if part(found, "State").get("Status") == "created" and not self._starter.has_begun(ref):
                self._engine.remove(container)
                continue
            self._open_proxy(found)
            running = self._starter.follow(ref, found)
            if self._starter.why_never_began(running, ref, command):
                continue  # it is removed, and a start reports the cause
            return self._in_turn(running, command.id)
        return None

    def attach(self, token: Token) -> Running:
        match token:
            case {"id": str(command_id), "container": str(container), "name": str(name)}:
                pass
            case _:
                raise Lost(f"the record does not say in which container the command runs: {token}")
        found = self._engine.inspect(container)
        if found is None:
            raise Lost(f"the container {name} is gone from the engine of {self._machine.host}")
        self._open_proxy(found)
        return self._in_turn(self._starter.follow(self._ref(command_id, container, name), found), command_id)

    def _in_turn(self, running: Running, command_id: str) -> Running:
        if self._turns is None:
            return running
        self._turns.go_on(CommandKind.CONTAINER, command_id)
        return TakingTurns(running, self._turns, CommandKind.CONTAINER, command_id)

    def running(self) -> list[str]:
        """Return the ids of the run's containers that run now, without services. Raises `Unavailable`."""
        try:
            return list(self._engine.listed({"pccpipe.run": self._run_id}, running=True, without=SERVICE_LABEL))
        except Unavailable as error:
            if error.reason is Reason.ENGINE_MISSING:
                return []
            raise

    def build_image(
        self,
        image: str,
        context: Path,
        dockerfile: Path,
        args: Mapping[str, str],
        *,
        only_if_missing: bool,
        on_output: Callable[[bytes], object],
        halt: Halt,
    ) -> bool:
        """Build an image from a folder of this machine; return False if it exists and that is enough.

        Raises `Unavailable` without an engine, ActionError when the build fails, Halted.
        """
        if only_if_missing and self._engine.has_image(image):
            return False
        with until_halted(self._machine, halt) as machine:
            engine = DockerEngine(machine, self._engine.socket)
            engine.build(image, context.absolute(), dockerfile.absolute(), args, on_output)
            self._images.built.add(image)
        return True

    def leave(self) -> None:
        self._close_proxy()
        self._engine.close()

    def close(self) -> tuple[str, ...]:
        self._is_closed = True
        self.services.close()
        self._close_proxy()
        try:
            return self._remove_all() if self._used else ()
        finally:
            self._engine.close()

    def _open_proxy(self, found: Mapping[str, Json] | None = None) -> None:
        """Listen at the proxy's socket; for a container that is found, only if it has that mounted.

        Raises `Unavailable`.
        """
        if self._proxy is None or (found is not None and not _has_mount(found, PROXY)):
            return
        with self._proxy_lock:
            if self._listener is None:
                path, accept = f"{self._run_dir.state}/{layout.PROXY}/{relay.SOCKET}", self._proxy.accept
                self._listener = self._proxy.machine.serve_socket(path, accept, open_to_all=self._proxy_is_open_to_all)

    def _close_proxy(self) -> None:
        with self._proxy_lock:
            if self._listener is not None:
                self._listener.close()
                self._listener = None

    def _remove_all(self) -> tuple[str, ...]:
        """Remove everything of the run; return, in words, what could not be removed."""
        self._used = False
        try:
            return retrying(self._removed, CLOSE_LIMIT)
        except Lost as lost:
            # `gc` goes by the containers' labels.
            return (left_there(self._machine.host, "what its containers left", lost.words, "pccpipe gc"),)

    def _removed(self) -> tuple[str, ...]:
        return (*self._remove_containers(), *self.services.remove(), *self._files.remove())

    def _remove_containers(self) -> list[str]:
        """Remove the run's containers, also those whose create call was answered to nobody.

        Returns, in words, those that the engine did not remove. Raises `Unavailable` while the engine is away,
        ConnectionError, TimeoutError.
        """
        until = time.monotonic() + BUSY_LIMIT
        while True:
            left: dict[str, str] = {}
            found = self._engine.listed({"pccpipe.run": self._run_id}, without=SERVICE_LABEL)
            for container, mounts in found.items():
                # Another project's run may have the same id on this engine.
                if not plain(mounts.get(IN, f"{self._run_dir.state}/")).startswith(f"{self._run_dir.state}/"):
                    continue
                try:
                    self._engine.remove(container)
                except Unavailable as error:
                    if error.reason is not Reason.ENGINE_ERROR:
                        raise
                    left[container] = error.words
            if not left or time.monotonic() >= until:
                host = self._machine.host
                return [
                    left_there(host, f"the container {self._name_of(each)}", words, f"docker rm -f {each[:12]}, there")
                    for each, words in left.items()
                ]
            time.sleep(BUSY_PAUSE)

    def _name_of(self, container: str) -> str:
        try:
            name = (self._engine.inspect(container) or {}).get("Name")
        except UNREACHABLE:
            name = None
        return str(name or container[:12]).removeprefix("/")


def _has_mount(found: Mapping[str, Json], target: str) -> bool:
    """Say whether the engine mounts something at a place in a container."""
    mounts = part(found, "HostConfig").get("Mounts")
    listed = mounts if isinstance(mounts, list) else []
    return any(isinstance(mount, dict) and mount.get("Target") == target for mount in listed)
