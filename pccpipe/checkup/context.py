"""The machine and engine that the checks look at; asks each question once for all checks."""

from __future__ import annotations

import secrets
import shlex
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from msgspec import Struct

from pccpipe import limits
from pccpipe.checkup.check import Fix, FixPlace
from pccpipe.data_files import data_path
from pccpipe.docker_api.engine import DockerEngine
from pccpipe.errors import Unavailable, UsageError
from pccpipe.layout import system_folder
from pccpipe.machine.base import Done, ListeningMachine, Machine
from pccpipe.machine.local import LocalMachine
from pccpipe.outcome import IsolationMode, Reason
from pccpipe.spec.model import Pipeline
from pccpipe.spec.project_model import Project, Vm
from pccpipe.ssh.connection import Connection

HOLDER = "pccpipe-doctor"
"""The lease's run id while `--fix` works on the VM."""
IMAGE = "pcc-runner:latest"
"""The image of the default pipeline's agents."""
ACCOUNT = "pccrun"
"""The account that `provision` makes where the project file names none."""
CONTEXT = data_path("docker")
DOCKERFILE = CONTEXT / "Dockerfile.pcc-runner"
PATH = "PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin"
"""A user's PATH on Debian lacks the folder of dockerd."""
PROBED = "probe"
"""The question that a container answers."""
CLEANUP = 60.0
"""Seconds for which `close` waits until that container is gone."""

T = TypeVar("T")


class CheckupOptions(Struct, frozen=True):
    """Say what to check, and how.

    Args:
        runs_dir: the records of runs on this machine; absolute.
        endpoint: the base URL of the model's API.
        key: for it; empty for none.
    """

    project: Project
    runs_dir: Path
    endpoint: str
    key: str
    accept_new_host_key: bool = False
    pipeline: Pipeline | None = None
    """The pipeline whose agents the images must have."""


class CheckContext:
    """Run commands on the checked machine, for many threads. `close` ends its connection."""

    def __init__(self, options: CheckupOptions) -> None:
        self.options = options
        self.vm: Vm | None = options.project.vm if options.project.isolation_mode is IsolationMode.VM else None
        self.connection = (
            Connection(self.vm, accept_new_host_key=options.accept_new_host_key) if self.vm is not None else None
        )
        local = LocalMachine()
        self.machine: Machine = self.connection or local
        self.listening_machine: ListeningMachine = self.connection or local
        self.engine = self._new_engine()
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._known: dict[str, object] = {}
        self._name = f"{secrets.token_hex(4)}-doctor"

    def _new_engine(self) -> DockerEngine:
        return DockerEngine(self.machine)

    @property
    def subject(self) -> str:
        project = self.options.project.title
        if self.vm is None:
            return f"{project}: this machine (isolation_mode {self.options.project.isolation_mode.value})"
        return f"{project}: VM {self.vm.user}@{self.vm.external_ip} port {self.vm.port}"

    @property
    def root(self) -> str:
        """The folder that holds the runs' folders; on a VM its folder for projects."""
        return self.vm.root if self.vm else str(system_folder(self.options.runs_dir).parent)

    @property
    def run_id(self) -> str:
        """The run id of the doctor's own container."""
        return self._name

    def once(self, name: str, ask: Callable[[], T]) -> T:
        """Ask once for all checks; the others wait for the answer."""
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:
            if name not in self._known:
                self._known[name] = ask()
            return cast("T", self._known[name])

    def forget(self) -> None:
        """Forget all answers and log in again: a login keeps the groups that it began with."""
        if self.connection:
            self.connection.close()
        with self._lock:
            self._locks, self._known = {}, {}
        self.engine = self._new_engine()

    @property
    def login_refusal(self) -> Unavailable | None:
        """The reason why login fails, if it does."""
        return self.once("login", lambda: _refusal(lambda: self.machine.facts))

    @property
    def engine_refusal(self) -> Unavailable | None:
        """The reason why the engine is unavailable, if it is."""
        return self.once("engine", lambda: _refusal(self.engine.open))

    @property
    def sudo(self) -> str:
        """The prefix of a command for root."""
        return "" if self.machine.facts.uid == 0 else "sudo "

    @property
    def has_systemd(self) -> bool:
        return self.once("systemd", lambda: self.run("[ -d /run/systemd/system ]").code == 0)

    @property
    def has_apk(self) -> bool:
        """True if the machine installs packages by apk, as Alpine does."""
        return self.once("apk", lambda: self.run("command -v apk && ! command -v apt-get").code == 0)

    def run(self, script: str, timeout: float = 15.0) -> Done:
        """Run a short script on the machine, in the C locale, with root's programs in PATH."""
        return self.machine.run(f"export LC_ALL=C {PATH}\n{script}", timeout)

    def words_of(self, script: str, timeout: float = 15.0) -> str:
        """Return what a short script prints."""
        said = self.run(script, timeout).stdout[: limits.MACHINE_WORDS.most]
        return said.decode(errors="replace").strip()

    def service(self, verb: str, name: str) -> str:
        """Return the command that starts or restarts a service."""
        manager = f"systemctl {verb} {name}" if self.has_systemd else f"service {name} {verb}"
        return f"{self.sudo}{manager}"

    def pccpipe(self, command: str) -> str:
        """Return a command of pccpipe for this project."""
        path = self.options.project.path
        return f"pccpipe {command}{f' --project {shlex.quote(str(path))}' if path else ''}"

    @property
    def provision_fix(self) -> Fix:
        """The fix that a person makes with `pccpipe provision`."""
        return Fix(self.pccpipe("provision"), FixPlace.HERE)

    def close(self) -> None:
        """End the connection, once the doctor's container is gone."""
        # A check that took too long may still have its container.
        probe = self._locks.get(PROBED)
        if probe and probe.acquire(timeout=CLEANUP):
            probe.release()
        if self.connection:
            self.connection.close()


def _refusal(use: Callable[[], object]) -> Unavailable | None:
    try:
        use()
    except Unavailable as refusal:
        return refusal
    except UsageError as error:
        # This machine's settings name an engine elsewhere.
        return Unavailable(Reason.ENGINE_MISSING, error.message, error.hint)
    return None
