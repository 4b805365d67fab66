"""Puts a run's parts together: which machine, which targets, whose workspace. What is heavy is loaded when it is
needed.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from pccpipe.errors import Unavailable, VmBusy
from pccpipe.outcome import IsolationMode, Place, Reason
from pccpipe.spec.model import Build, Pipeline, Project, Secret, SecretSource
from pccpipe.targets.base import Target
from pccpipe.workspace.sync import WorkspaceSync

if TYPE_CHECKING:
    from pccpipe.shell.lease import Lease
    from pccpipe.ssh.connection import Connection
    from pccpipe.targets.container import ContainerTarget
    from pccpipe.targets.machine import Machine

DEFAULT_SOCKET = "/var/run/docker.sock"


@dataclass(frozen=True, slots=True)
class Folders:
    """A run's folders at home. All but `state` are in its record: whoever has that can go on with the run."""

    user: Path
    """The workspace as the user gave it."""
    record: Path
    copy: Path
    """The run's copy of the workspace."""
    sent: Path
    """What was sent, for the diff."""
    state: Path
    """What is kept of commands on this machine."""

    @staticmethod
    def of(runs_dir: Path, run_id: str, workspace: Path) -> Folders:
        """The folders of a run whose record is in `runs_dir`."""
        record = runs_dir / run_id
        return Folders(
            workspace, record, record / "workspace", record / "workspace-sent", runs_dir.parent / "run-state" / run_id
        )


class Assembly:
    """The machines and targets of one run, each made when it is first asked for. Safe from many threads."""

    def __init__(
        self, run_id: str, pipeline: Pipeline, project: Project, folders: Folders, *, accept_new_host_key: bool
    ) -> None:
        self._run_id = run_id
        self._project = project
        self._folders = folders
        self._accept_new = accept_new_host_key
        self._withheld = _variables_of(pipeline.secrets)
        self._lock = threading.RLock()
        self._made: dict[Place, Target] = {}
        self._connection: Connection | None = None
        self._lease: Lease | None = None
        self._lease_lock = threading.Lock()
        self._login: threading.Thread | None = None
        remote = f"{project.vm.root}/.system/run-workspaces/{run_id}" if project.vm else ""
        on_vm = project.isolation_mode is IsolationMode.VM
        self.workspace = WorkspaceSync(
            user_folder=folders.user,
            home_copy=folders.copy,
            sent=folders.sent,
            machine=self._connected if on_vm else None,
            remote=remote,
            state=folders.record / "workspace.json",
        )

    def __getitem__(self, place: Place) -> Target:
        if self._project.isolation_mode is IsolationMode.VM and place is not Place.LOCAL:
            self.claim()
        with self._lock:
            if place not in self._made:
                self._made[place] = self._make(place)
            return self._made[place]

    def connect_early(self) -> None:
        """Begin to log in to the VM, while the caller goes on. What goes wrong is said when a step asks for it."""
        self._login = threading.Thread(target=self._log_in, name="pccpipe-login", daemon=True)
        self._login.start()

    def _log_in(self) -> None:
        with contextlib.suppress(Unavailable, ConnectionError, TimeoutError):
            _ = self._connection_to_vm().facts

    @property
    def had_vm(self) -> bool:
        return self._lease is not None

    def claim(
        self,
        wait: float = 0.0,
        give_up: Callable[[], bool] = lambda: True,
        on_wait: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Have the VM for this run alone, until `close`. Arguments as for `Lease.acquire`.

        Raises `VmBusy`, also when another run took the VM over meanwhile; `Unavailable`.
        """
        if self._login:
            self._login.join()
        with self._lease_lock:
            if self._lease is None:
                from pccpipe.shell.lease import Lease

                assert self._project.vm is not None
                holder = f"{socket.gethostname()} pid {os.getpid()}"
                lease = Lease(self._connection_to_vm(), self._project.vm.root, self._run_id, holder=holder)
                lease.acquire(wait, give_up, on_wait)
                self._lease = lease
            if self._lease.lost:
                raise VmBusy(self._lease.lost)

    def build(self, build: Build, image: str, args: Mapping[str, str], log: Path) -> bool:
        """Build an image on the engine that `on: container` leads to."""
        if self._project.isolation_mode is IsolationMode.LOCAL:
            words = "the project's isolation_mode is local: it has no engine"
            raise Unavailable(Reason.ENGINE_MISSING, words)
        target = self._container()
        target.open()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab", buffering=0) as file:
            return target.build_image(
                image,
                build.context,
                build.dockerfile,
                args,
                only_if_missing=build.only_if_missing,
                on_output=file.write,
            )

    def close(self) -> None:
        if self._login:
            self._login.join()
        with self._lock:
            # Containers before the VM's files, which they have mounted.
            for place in sorted(self._made, key=lambda place: place is not Place.CONTAINER):
                self._made[place].close()
            self._made.clear()
            with self._lease_lock:
                if self._lease is not None:
                    self._lease.release()
            if self._connection is not None:
                self._connection.close()

    def _make(self, place: Place) -> Target:
        match place:
            case Place.LOCAL:
                from pccpipe.targets.local import LocalTarget

                return LocalTarget(self._run_id, self._folders.state, lambda: self.workspace.home, self._withheld)
            case Place.VM:
                from pccpipe.targets.vm import VmTarget

                vm = self._project.vm
                assert vm is not None
                return VmTarget(self._connection_to_vm(), self._run_id, vm.root)
            case Place.CONTAINER:
                return self._make_container()
            case _:
                assert_never(place)

    def _container(self) -> ContainerTarget:
        from pccpipe.targets.container import ContainerTarget

        target = self[Place.CONTAINER]
        assert isinstance(target, ContainerTarget)
        return target

    def _make_container(self) -> ContainerTarget:
        from pccpipe.targets.container import ContainerTarget

        if self._project.isolation_mode is not IsolationMode.VM:
            from pccpipe.shell.here import Here

            here = Here(self._withheld)
            state = str(self._folders.state.absolute())
            return ContainerTarget(
                here, self._run_id, state, lambda: str(self.workspace.home.absolute()), _local_socket()
            )
        vm = self._project.vm
        assert vm is not None
        system = f"{vm.root}/.system"
        workspace = f"{system}/run-workspaces/{self._run_id}"
        return ContainerTarget(
            self._connection_to_vm(), self._run_id, f"{system}/run-state/{self._run_id}", lambda: workspace
        )

    def _connected(self) -> Machine:
        """The VM, which is this run's alone. Raises as `claim` does."""
        self.claim()
        return self._connection_to_vm()

    def _connection_to_vm(self) -> Machine:
        """The run's one connection; it connects by itself when it is first used."""
        with self._lock:
            if self._connection is None:
                from pccpipe.ssh.connection import Connection

                assert self._project.vm is not None
                self._connection = Connection(self._project.vm, accept_new_host_key=self._accept_new)
            return self._connection


def _variables_of(secrets: Mapping[str, Secret]) -> frozenset[str]:
    """The environment variables that hold secrets: a command on this machine gets those that its step names, and no
    others.
    """
    return frozenset(secret.source_name for secret in secrets.values() if secret.source is SecretSource.ENV)


def _local_socket() -> str:
    host = os.environ.get("DOCKER_HOST", "")
    return host.removeprefix("unix://") if host.startswith("unix://") else DEFAULT_SOCKET
