"""A run's machines, targets and workspace. Heavy modules are loaded when they are needed."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from msgspec import Struct

from pccpipe.cancel import Halt
from pccpipe.errors import PccpipeError, Unavailable, VmBusy
from pccpipe.layout import COPY, SENT, STATES, SYNC_STATE, system_folder
from pccpipe.machine.base import ByteStream, Machine, ProxyRoute
from pccpipe.outcome import IsolationMode, Place, Reason
from pccpipe.record.index import has_ended
from pccpipe.record.vm_history import VmHistory
from pccpipe.secrets.values import Secrets
from pccpipe.service import ServiceHost
from pccpipe.session.vm import ProjectVm
from pccpipe.spec.model import Build, Pipeline, Run
from pccpipe.spec.project_model import Project
from pccpipe.spec.secret import Secret, SecretSource
from pccpipe.target import Target
from pccpipe.workspace.state import has_only_copy_on_vm
from pccpipe.workspace.sync import Copies, WorkspaceSync

if TYPE_CHECKING:
    from pccpipe.targets.container import ContainerTarget
    from pccpipe.targets.turns import Turns


class Folders(Struct, frozen=True):
    """A run's local folders. All but `state` are in its record: a machine that has the record can resume the run."""

    user: Path
    """The workspace as the user gave it."""
    record: Path
    copy: Path
    """The run's copy of the workspace."""
    sent: Path
    """The files that were sent, for the diff."""
    state: Path
    """The files of commands on this machine."""

    @staticmethod
    def of(runs_dir: Path, run_id: str, workspace: Path) -> Folders:
        """Return the folders of a run whose record is in `runs_dir`."""
        record = runs_dir / run_id
        state = system_folder(runs_dir) / STATES / run_id
        # Version 0.1 kept it there, for a run that it began.
        earlier = runs_dir.parent / STATES / run_id
        state = earlier if earlier.is_dir() and not state.exists() else state
        return Folders(workspace, record, record / COPY, record / SENT, state)

    @property
    def own(self) -> str:
        """Return a pattern, as in a .gitignore, for the records in the workspace, which an upload leaves out."""
        around, records = os.path.realpath(self.user), os.path.realpath(self.record.parent)
        mine = Path(os.path.realpath(self.record) if records == around else records)
        if not mine.is_relative_to(around):
            return ""
        return "/" + re.sub(r"([\\*?\[\]!# ])", r"\\\1", str(mine.relative_to(around)))


class ProjectTargets:
    """The machines and targets of one run, each made on first use. Safe from many threads."""

    def __init__(
        self,
        run_id: str,
        pipeline: Pipeline,
        project: Project,
        folders: Folders,
        *,
        resumes: bool,
        accept_new_host_key: bool,
        secrets: Secrets,
        accept: Callable[[ByteStream], None],
    ) -> None:
        self._run_id = run_id
        self._accept = accept
        self._project = project
        self._folders = folders
        self._masker = secrets.masker
        self._withheld = _variables_of(pipeline.secrets)
        self._root_images = _root_images(pipeline)
        """Images that the pipeline runs as root: they may leave root's files in the workspace."""
        self._lock = threading.RLock()
        self._made: dict[Place, Target] = {}
        self._vm_history: VmHistory | None = None
        self._turns: Turns | None = None
        self._resumes = resumes
        self.vm: ProjectVm | None = None
        """The project's VM, if steps lead there."""
        if project.isolation_mode is IsolationMode.VM:
            assert project.vm is not None
            address = f"{project.vm.external_ip}:{project.vm.port}"
            self._vm_history = VmHistory(folders.record.parent, address, run_id, resumes=resumes)
            self.vm = ProjectVm(
                project.vm,
                run_id,
                resumes=resumes,
                accept_new_host_key=accept_new_host_key,
                is_over=lambda other: has_ended(folders.record.parent / other),
                has_only_copy=lambda other: has_only_copy_on_vm(folders.record.parent / other),
                has_copies=any(step.own_workspace for step in pipeline.all_steps()),
            )
        self.workspace = WorkspaceSync(
            user_folder=folders.user,
            local_copy=folders.copy,
            sent=folders.sent,
            machine=self._claim_workspace if self.vm else None,
            remote=self.vm.workspace if self.vm else "",
            keeps_folder=bool(project.vm and project.vm.run_as),
            root=self._as_root,
            copies=Copies(self.vm.copies if self.vm else "", self._as_root),
            state=folders.record / SYNC_STATE,
            own=folders.own,
            secrets=secrets,
        )

    def __getitem__(self, place: Place) -> Target:
        if self.vm and place is not Place.LOCAL:
            self._claim(self.vm)
        with self._lock:
            if place not in self._made:
                self._made[place] = self._make(place)
            return self._made[place]

    @property
    def had_vm(self) -> bool:
        return self.vm is not None and self.vm.had

    @property
    def fenced(self) -> str | None:
        return self.vm.fenced if self.vm else None

    def gives_sign(self, place: Place) -> bool:
        if place is Place.LOCAL:
            return True
        if self.vm and not self.vm.gives_sign():
            return False
        return place is not Place.CONTAINER or self._container().gives_sign()

    @property
    def vm_history(self) -> str | None:
        return self._vm_history.earlier() if self._vm_history else None

    def remember_vm(self) -> None:
        if self._vm_history:
            self._vm_history.remember()

    def build(self, build: Build, image: str, args: Mapping[str, str], log: Path, halt: Halt) -> bool:
        """Build an image on the engine that `on: container` leads to."""
        if self._project.isolation_mode is IsolationMode.LOCAL:
            words = "the project's isolation_mode is local: it has no engine"
            raise Unavailable(Reason.ENGINE_MISSING, words)
        target = self._container()
        target.open()
        log.parent.mkdir(parents=True, exist_ok=True)
        mask = self._masker.stream()
        with log.open("ab", buffering=0) as file:
            try:
                return target.build_image(
                    image,
                    build.context,
                    build.dockerfile,
                    args,
                    only_if_missing=build.only_if_missing,
                    on_output=lambda data: file.write(mask.feed(data)),
                    halt=halt,
                )
            finally:
                file.write(mask.finish())

    @property
    def services(self) -> ServiceHost:
        """Return the host of services, on the engine that `on: container` leads to. Raises `Unavailable`."""
        if self._project.isolation_mode is IsolationMode.LOCAL:
            raise Unavailable(Reason.ENGINE_MISSING, "the project's isolation_mode is local: it has no engine")
        return self._container().services

    def leave(self) -> None:
        """Disconnect, and leave all of it as it is for the process that resumes the run."""
        with self._lock:
            for target in self._made.values():
                target.leave()
            self._made.clear()
            if self.vm:
                self.vm.leave()

    def close(self) -> list[str]:
        if self.vm:
            self.vm.make_sure()
        left: list[str] = []
        with contextlib.suppress(PccpipeError, OSError):
            # A container still can; the run's folder here is removed soon.
            self.workspace.reclaim_files()
        with self._lock:
            # Containers first: they have the VM's files mounted.
            for place in sorted(self._made, key=lambda place: place is not Place.CONTAINER):
                left += self._made[place].close()
            self._made.clear()
            if self.vm:
                self.vm.close()
        return left

    def _make(self, place: Place) -> Target:
        match place:
            case Place.LOCAL:
                from pccpipe.targets.local import LocalTarget

                return LocalTarget(
                    self._run_id,
                    self._folders.state,
                    lambda: self.workspace.local_folder,
                    self._withheld,
                    accept=self._accept,
                )
            case Place.VM:
                from pccpipe.targets.vm import VmTarget

                assert self.vm is not None
                proxy = ProxyRoute(self.vm.listening_machine, self._accept)
                return VmTarget(
                    self.vm.connection,
                    self._run_id,
                    self.vm.root,
                    self._project.lost_after,
                    proxy=proxy,
                    account=self.vm.account,
                    turns=self._vm_turns(self.vm),
                    has_workspace=self._has_workspace,
                    gate=self.vm.gate,
                )
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

        if self.vm is None:
            from pccpipe.machine.local import LocalMachine

            here = LocalMachine(self._withheld)
            state = str(self._folders.state.absolute())
            return ContainerTarget(
                here,
                self._run_id,
                state,
                lambda: str(self.workspace.local_folder.absolute()),
                lost_after=self._project.lost_after,
                proxy=ProxyRoute(here, self._accept),
                outside=frozenset({Place.LOCAL, Place.VM}),
            )
        workspace = self.vm.workspace
        return ContainerTarget(
            self.vm.connection,
            self._run_id,
            self.vm.state,
            lambda: workspace,
            lost_after=self._project.lost_after,
            proxy=ProxyRoute(self.vm.listening_machine, self._accept),
            account=self.vm.account,
            turns=self._vm_turns(self.vm),
            gate=self.vm.gate,
            root=self.vm.root,
            has_workspace=self._has_workspace,
        )

    def _has_workspace(self) -> bool:
        return self.workspace.is_on_vm

    def _claim(self, vm: ProjectVm) -> Machine:
        """Return the VM, claimed for this run alone. Raises `Unavailable`."""
        try:
            return vm.claim()
        except VmBusy as busy:
            raise Unavailable(Reason.VM_BUSY, busy.message, busy.hint) from busy

    def _as_root(self, script: str, workspace: str = "") -> bool:
        """Run a script in a workspace as root, in an image that the pipeline runs as root; return True on success."""
        from pccpipe.targets.as_root import run_as_root

        if self._project.isolation_mode is IsolationMode.LOCAL:
            return False
        try:
            return any(run_as_root(self._container(), image, script, workspace) for image in self._root_images)
        except PccpipeError:
            return False

    def _claim_workspace(self) -> Machine:
        """Return the VM for work in the workspace, as the account that owns the workspace, if there is one."""
        assert self.vm is not None
        machine = self._claim(self.vm)
        with self._lock:
            turns = self._vm_turns(self.vm)
        if turns is None or self.vm.account is None:
            return machine
        from pccpipe.detached.as_account import AccountMachine

        return AccountMachine(machine, self.vm.account, turns.working)

    def _services_running(self) -> list[str]:
        return self._container().services.containers()

    def _vm_turns(self, vm: ProjectVm) -> Turns | None:
        """Return the turns of commands and containers on the VM: they share an account and never run together."""
        if vm.account is None or self._turns is not None:
            return self._turns
        from pccpipe.detached.programs import RunDir
        from pccpipe.targets.turns import Turns

        place = RunDir(self._run_id, vm.state, vm.account)
        self._turns = Turns(
            vm.connection,
            place,
            lambda: self._container().running(),
            self._services_running,
            resumes=self._resumes,
        )
        return self._turns


def _root_images(pipeline: Pipeline) -> list[str]:
    wheres = [step.body.where for step in pipeline.all_steps() if isinstance(step.body, Run)]
    boxes = [box for where in wheres for box in where.containers if box.settings.root]
    return list(dict.fromkeys(box.image.source for box in boxes if box.image.is_plain))


def _variables_of(secrets: Mapping[str, Secret]) -> frozenset[str]:
    """Return the environment variables that hold secrets: a local command gets only those that its step names."""
    return frozenset(secret.source_name for secret in secrets.values() if secret.source is SecretSource.ENV)
