"""Runs `selfcheck`: one run with the canary, and searches while commands run and after the run."""

from __future__ import annotations

import contextlib
import os
import secrets as randomness
import shlex
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from pccpipe.api import load, local_project, run
from pccpipe.canary.engine import EngineLooker
from pccpipe.canary.ledger import Ledger, SelfcheckReport, Spot
from pccpipe.canary.machine import Looker
from pccpipe.canary.places import Classifier, container_files, engine_files, local_files, vm_files
from pccpipe.canary.record import HERE, RECORD, SHOWN, RecordedViews, RecordFiles, look_at_errors
from pccpipe.canary.value import Canary
from pccpipe.cancel import Cancel
from pccpipe.data_files import data_path
from pccpipe.detached import as_account, programs
from pccpipe.docker_api.engine import DockerEngine
from pccpipe.docker_api.settings import HOME
from pccpipe.errors import UsageError
from pccpipe.layout import COPY, RUNS, SystemDir
from pccpipe.machine.base import Machine
from pccpipe.machine.local import LocalMachine
from pccpipe.machine.retry import UNREACHABLE
from pccpipe.outcome import IsolationMode, Outcome, Place
from pccpipe.record.events import CommandEnded, CommandStarted, Event, Output
from pccpipe.record.run_events import RunStarted
from pccpipe.record.step_path import split
from pccpipe.spec.model import Pipeline, Run
from pccpipe.spec.project_model import Project
from pccpipe.spec.secret import SecretSource, Via
from pccpipe.ssh.connection import Connection
from pccpipe.values import Json

OWN_PIPELINE = ("pipelines", "selfcheck.yaml")
_TEMPORARY_THERE = ("/tmp", "/var/tmp", "/dev/shm")
_PROCESSES = (Spot.ARGUMENTS, Spot.ENVIRONMENT, Spot.OWN_ENVIRONMENT)
_CONTAINERS = (Spot.CONTAINER_PROCESSES, Spot.INSPECT)


def selfcheck(
    project: Project | None = None,
    *,
    pipeline: Pipeline | None = None,
    inputs: Mapping[str, Json] | None = None,
    workspace: str | Path | None = None,
    on_progress: Callable[[str], object] = lambda _: None,
    cancel: Cancel | None = None,
    accept_new_host_key: bool = False,
    wait: float = 0.0,
) -> SelfcheckReport:
    """Give a canary secret to a real run, and search every place that must not have a secret.

    The value is random, made for this one check, and useless. The check leaves nothing behind, here or on the VM.

    Args:
        project: where steps lead; default: all run on this machine.
        pipeline: run this one, with the canary as each of its secrets; default: a built-in one.
        inputs: of the pipeline; the default one has `image`, of its steps in containers.
        workspace: of the pipeline; default: an empty folder.
        on_progress: called with the current search, in words.
        cancel, accept_new_host_key, wait: as for `run`.

    Raises UsageError, before anything is made, if the run can't be begun as asked.
    """
    own = pipeline is None
    project = project or local_project()
    pipeline = pipeline or load(data_path(*OWN_PIPELINE))
    if not pipeline.secrets:
        raise UsageError(f"{pipeline.path} declares no secret, so there is nothing to search for")
    canary = Canary()
    cancel = cancel or Cancel()
    with tempfile.TemporaryDirectory(prefix="pccpipe-selfcheck-") as name, _exported(canary) as variable:
        folder = Path(name)
        (folder / "workspace").mkdir()
        check = _Selfcheck(
            canary,
            project,
            _with_canary(pipeline, variable),
            folder,
            Path(workspace or folder / "workspace").absolute(),
            cancel,
            on_progress,
            accept_new_host_key=accept_new_host_key,
            waits=own,
        )
        try:
            result = run(
                check.pipeline,
                run_id=check.run_id,
                project=project,
                workspace=check.workspace,
                inputs=inputs,
                runs_dir=check.record.parent,
                on_event=check,
                cancel=cancel,
                accept_new_host_key=accept_new_host_key,
                wait=wait,
            )
            check.after(variable)
        finally:
            check.close()
        of_user = {Outcome.FAILED, Outcome.TIMED_OUT}
        whole = result.outcome is Outcome.SUCCEEDED or (not own and result.outcome in of_user)
        return SelfcheckReport(check.ledger.rows, result.outcome, result.status, canary.masked(result.message), whole)


@contextlib.contextmanager
def _exported(canary: Canary) -> Iterator[str]:
    """Put the canary into an environment variable, like a user's key; no other run knows its name."""
    variable = f"PCCPIPE_CANARY_{randomness.token_hex(4).upper()}"
    os.environ[variable] = canary.value
    try:
        yield variable
    finally:
        del os.environ[variable]


def _with_canary(pipeline: Pipeline, variable: str) -> Pipeline:
    declared = {
        name: replace(secret, source=SecretSource.ENV, source_name=variable)
        for name, secret in pipeline.secrets.items()
    }
    return replace(pipeline, secrets=declared)


class _ProvokedError(Exception):
    """Carry the secret in an error's words, which the journal reports, and must mask."""


class _Selfcheck:
    """Search around one run, at its events: each event, and so the run, waits for the search.

    Args:
        waits: whether the steps wait until they have been searched.
    """

    def __init__(
        self,
        canary: Canary,
        project: Project,
        pipeline: Pipeline,
        folder: Path,
        workspace: Path,
        cancel: Cancel,
        on_progress: Callable[[str], object],
        *,
        accept_new_host_key: bool,
        waits: bool,
    ) -> None:
        self.canary = canary
        self.pipeline = pipeline
        self.workspace = workspace
        self.run_id = f"selfcheck-{randomness.token_hex(4)}"
        self.record = folder / RUNS / self.run_id
        self.ledger = Ledger(canary)
        self._cancel = cancel
        self._progress = on_progress
        self._waits = waits
        self._screen = RecordedViews(self.record)
        self._filed = RecordFiles()
        self._folder = folder
        self._running: dict[str, CommandStarted] = {}
        self._has_spoken: set[str] = set()
        self._secret_was_out = False
        self._failure: BaseException | None = None
        """The error that ended a search; the journal ends no run for a listener's error."""
        direct = {name for name, secret in pipeline.secrets.items() if secret.via is Via.DIRECT}
        self._given = {
            step.id: not direct.isdisjoint(step.body.all_secrets)
            for step in pipeline.all_steps()
            if isinstance(step.body, Run)
        }
        local = LocalMachine(frozenset(secret.source_name for secret in pipeline.secrets.values()))
        self._here = Looker(local, HERE, canary, self.ledger, self.run_id, may_sudo=False)
        self._vm: Looker | None = None
        self._connection: Connection | None = None
        self._remote_state = self._remote_workspace = self._root = ""
        self._run_as = (project.vm.run_as or "") if project.vm else ""
        if project.isolation_mode is IsolationMode.VM:
            assert project.vm is not None
            self._connection = Connection(project.vm, accept_new_host_key=accept_new_host_key)
            self._vm = Looker(self._connection, project.vm.external_ip, canary, self.ledger, self.run_id, may_sudo=True)
            system = SystemDir.on_vm(project.vm.root)
            self._remote_workspace, self._remote_state = system.workspace(self.run_id), system.state(self.run_id)
            self._root = project.vm.root
        self._engine: EngineLooker | None = None
        self._engine_folder = ""
        has_containers = any(
            isinstance(step.body, Run) and step.body.where.on is Place.CONTAINER for step in pipeline.all_steps()
        )
        if project.isolation_mode is not IsolationMode.LOCAL and has_containers:
            side = self._side
            engine = DockerEngine(side.machine)
            self._engine = EngineLooker(engine, side.where, canary, self.ledger)
        self._name_rows()

    @property
    def _side(self) -> Looker:
        """The machine of the engine, and of steps that are not local."""
        return self._vm or self._here

    @property
    def _vm_files(self) -> Classifier:
        return vm_files(self._remote_state, self._remote_workspace, self._engine_folder)

    def _name_rows(self) -> None:
        name = self.ledger.name
        for looker, disk in ((self._here, Spot.TEMPORARY), *(((self._vm, Spot.DISK),) if self._vm else ())):
            name(looker.where, _PROCESSES, "processes")
            name(looker.where, (Spot.WORKSPACE, Spot.STATE, Spot.SPOOLS, disk), "files")
        if self._engine:
            where = self._side.where
            name(where, [Spot.CONTAINER_PROCESSES], "processes")
            name(where, [Spot.INSPECT], "containers")
            name(where, (Spot.CONTAINER_DISK, Spot.CONTAINER_MEMORY, Spot.ENGINE_FILES), "files")
            name(where, [Spot.IMAGES], "images")
        name(HERE, RECORD, "files")
        name(HERE, SHOWN, "lines")
        name(HERE, [Spot.EXCEPTIONS], "errors")

    def __call__(self, event: Event) -> None:
        self._screen(event)
        self._filed(event)
        if isinstance(event.what, RunStarted):
            raise _ProvokedError(f"provoked by the check: {self.canary.value}")
        if self._cancel.requested or self._failure:
            return
        try:
            self._search_at(event)
        except BaseException as error:
            self._failure = error
            self._cancel.request()
            raise

    def _search_at(self, event: Event) -> None:
        match event.what:
            case CommandStarted() as began:
                self._running[began.step] = began
                self._secret_was_out = self._secret_was_out or self._is_given(began.step)
                self._look_around(began, "began")
                if self._waits:
                    self._let_go(began)
            case Output(step=step) if not self._waits and step in self._running and step not in self._has_spoken:
                self._has_spoken.add(step)
                self._look_around(self._running[step], "spoke")
            case CommandEnded(step=step) if step in self._running:
                began = self._running.pop(step)
                self._has_spoken.discard(step)
                self._look_around(began, "ended")
                if began.had.place is Place.CONTAINER:
                    self._look_at_engine_files("/containers", self._expected)
            case _:
                pass

    def after(self, variable: str) -> None:
        """Search everywhere after the run: nothing may be left."""
        if self._failure:
            raise self._failure
        if self._cancel.requested:
            return
        for looker in filter(None, (self._here, self._vm)):
            self._progress(f"{looker.where}: processes")
            looker.processes(own_is_expected=False)
        self._progress(f"{HERE}: files")
        self._look_at_files_here("pcc_files", ())
        if self._engine:
            self._progress(f"{self._side.where}: the engine")
            self._side.attempt(_CONTAINERS, self._engine.containers)
            self._side.attempt([Spot.IMAGES], self._engine.images)
            self._look_at_engine_files("", ())
        if self._vm:
            self._progress(f"{self._vm.where}: all files that have changed")
            self._vm.files(shlex.join(["pcc_everywhere", self._engine_folder]), self._vm_files)
        self._progress(f"{HERE}: the record")
        self._filed.look(self.record, self.canary, self.ledger)
        self._screen.look(self.canary, self.ledger)
        look_at_errors(self.canary, variable, self.ledger)

    def close(self) -> None:
        """Leave nothing on the VM, even of a pipeline that leaves its workspace there."""
        if self._connection is None:
            return
        end = programs.end_run(programs.RunDir(self.run_id, self._remote_state))
        # `gc` removes what can't be removed now.
        with contextlib.suppress(*UNREACHABLE):
            if self._run_as:
                as_account.remove(self._connection, self._run_as, self._root, self.run_id)
            self._connection.run(f"{end}\nrm -rf {shlex.quote(self._remote_workspace)}")
        self._connection.close()

    def _is_given(self, step: str) -> bool:
        """Say whether the step of a path gets the secret itself; the path may end with a leg of a matrix."""
        ids = [part for part in split(step) if not part.startswith("[")]
        return self._given.get(ids[-1], False)

    @property
    def _expected(self) -> Sequence[Spot]:
        """The places where the secret may be by now: a step that has it may have printed it."""
        return (Spot.SPOOLS, Spot.CONTAINER_MEMORY) if self._secret_was_out else ()

    def _look_around(self, command: CommandStarted, moment: str) -> None:
        has_it = any(map(self._is_given, self._running))
        for looker in filter(None, (self._here, self._vm)):
            self._progress(f"{command.step} {moment}: {looker.where}: processes")
            looker.processes(own_is_expected=has_it)
        self._progress(f"{command.step} {moment}: files")
        self._look_at_files_here("pcc_on_top", self._expected)
        if self._vm:
            call = f"{_call([self._remote_workspace, self._remote_state])}\n{_call(_TEMPORARY_THERE, 'pcc_on_top')}"
            self._vm.files(call, self._vm_files, expected=self._expected)
        if self._engine and command.had.place is Place.CONTAINER:
            self._progress(f"{command.step} {moment}: container")
            self._side.attempt(_CONTAINERS, self._engine.containers)
            self._look_into(self._engine, str(command.token.get("container")))
        self._progress(f"{command.step} {moment}: searched")

    def _look_into(self, engine: EngineLooker, container: str) -> None:
        """Search a running container's own files, through /proc: its image may have no tools."""
        spots = (Spot.CONTAINER_DISK, Spot.CONTAINER_MEMORY)
        pids: list[int] = []
        self._side.attempt(spots, lambda: pids.append(engine.process_of(container)))
        if any(pids):
            call = shlex.join(["pcc_container", container, str(pids[0]), HOME])
            self._side.files(call, container_files(pids[0]), expected=self._expected)

    def _look_at_files_here(self, how: str, expected: Sequence[Spot]) -> None:
        """Search the run's own folders; `how` names the search of the folders for temporary files."""
        temporary = dict.fromkeys([tempfile.gettempdir(), "/dev/shm"])
        call = f"{_call([str(self._folder), str(self.workspace)])}\n{_call(temporary, how)}"
        self._here.files(call, local_files(self._folder, self.record, self.workspace), expected=expected)

    def _look_at_engine_files(self, part: str, expected: Sequence[Spot]) -> None:
        """Search a part of the engine's folder, which keeps output as it was printed until its container goes."""
        engine, side = self._engine, self._side
        assert engine is not None

        def find() -> None:
            self._engine_folder = engine.folder()

        side.attempt([Spot.ENGINE_FILES], find)
        if not self._engine_folder:
            return
        self._progress(f"{side.where}: the engine's files")
        side.files(_call([f"{self._engine_folder}{part}"]), engine_files(self._engine_folder), expected=expected)

    def _let_go(self, command: CommandStarted) -> None:
        """Tell a waiting step that it has been searched."""
        machine: Machine = self._here.machine
        folder = command.had.workspace
        if command.had.place is not Place.LOCAL:
            machine = self._side.machine
        if command.had.place is Place.CONTAINER:
            folder = self._remote_workspace or str(self.record / COPY)
            folder += "/workspace" if self._run_as else ""
        script = f"umask 000; : >{shlex.quote(f'{folder}/.looked-{split(command.step)[-1]}')}"
        if self._run_as and command.had.place is not Place.LOCAL and machine.facts.uid != 0:
            script = shlex.join(["sudo", "-n", "-u", self._run_as, "--", "sh", "-c", script])
        machine.run(script)


def _call(folders: Iterable[str], how: str = "pcc_files") -> str:
    return shlex.join([how, *folders])
