"""What the checks look at: one machine and its engine, each asked once for what several checks want to know."""

from __future__ import annotations

import secrets
import shlex
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from msgspec import Struct

from pccpipe import limits
from pccpipe.data_files import data_path
from pccpipe.docker_api.engine import DockerEngine
from pccpipe.errors import Unavailable, UsageError
from pccpipe.machine.base import Done, Listens, Machine
from pccpipe.machine.local import LocalMachine
from pccpipe.outcome import IsolationMode, Reason
from pccpipe.record.fence import system_folder
from pccpipe.spec.model import Project, Vm
from pccpipe.ssh.connection import Connection

HOLDER = "pccpipe-doctor"
"""Has the VM while `--fix` is at work there."""
IMAGE = "pcc-runner:latest"
"""What the default pipeline's agents run in."""
ACCOUNT = "pccrun"
"""The account that `provision` makes where the project file names none."""
CONTEXT = data_path("docker")
DOCKERFILE = CONTEXT / "Dockerfile.pcc-runner"
PATH = "PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin"
"""A user's path on Debian leaves out where dockerd is."""
PROBED = "probe"
"""The answer for which a container is run."""
CLEANUP = 60.0
"""Seconds for which the end waits until that container is gone."""

T = TypeVar("T")


class Chart(Struct, frozen=True):
    """What is known before anything is looked at.

    Args:
        runs_dir: the records of runs here; absolute.
        endpoint: the base URL of the model's API.
        key: for it; empty for none.
    """

    project: Project
    runs_dir: Path
    endpoint: str
    key: str
    accept_new_host_key: bool = False


class Patient:
    """Safe from many threads. `close` ends the connection that it may have made."""

    def __init__(self, chart: Chart) -> None:
        self.chart = chart
        self.vm: Vm | None = chart.project.vm if chart.project.isolation_mode is IsolationMode.VM else None
        self.connection = (
            Connection(self.vm, accept_new_host_key=chart.accept_new_host_key) if self.vm is not None else None
        )
        here = LocalMachine()
        self.machine: Machine = self.connection or here
        self.serving: Listens = self.connection or here
        self.engine = self._new_engine()
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._known: dict[str, object] = {}
        self._name = f"{secrets.token_hex(4)}-doctor"

    def _new_engine(self) -> DockerEngine:
        return DockerEngine(self.machine)

    @property
    def subject(self) -> str:
        project = self.chart.project.title
        if self.vm is None:
            return f"{project}: this machine (isolation_mode {self.chart.project.isolation_mode.value})"
        return f"{project}: the VM {self.vm.user}@{self.vm.external_ip} port {self.vm.port}"

    @property
    def root(self) -> str:
        """The folder under which runs have their folders; on a VM its folder for projects."""
        return self.vm.root if self.vm else str(system_folder(self.chart.runs_dir).parent)

    @property
    def run_id(self) -> str:
        """That of the doctor's own container."""
        return self._name

    def once(self, name: str, ask: Callable[[], T]) -> T:
        """Ask for something that several checks want to know; they wait for one answer."""
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:
            if name not in self._known:
                self._known[name] = ask()
            return cast("T", self._known[name])

    def forget(self) -> None:
        """Ask anew, and log in anew: a login has the groups that it began with."""
        if self.connection:
            self.connection.close()
        with self._lock:
            self._locks, self._known = {}, {}
        self.engine = self._new_engine()

    @property
    def login_refusal(self) -> Unavailable | None:
        """Why nobody can log in there, if so."""
        return self.once("login", lambda: _refusal(lambda: self.machine.facts))

    @property
    def engine_refusal(self) -> Unavailable | None:
        """Why its engine can't be had, if so."""
        return self.once("engine", lambda: _refusal(self.engine.open))

    @property
    def sudo(self) -> str:
        """What is to be written before a command for root."""
        return "" if self.machine.facts.uid == 0 else "sudo "

    @property
    def has_systemd(self) -> bool:
        return self.once("systemd", lambda: self.run("[ -d /run/systemd/system ]").code == 0)

    @property
    def has_apk(self) -> bool:
        """Whether packages are installed there as on Alpine."""
        return self.once("apk", lambda: self.run("command -v apk && ! command -v apt-get").code == 0)

    def run(self, script: str, timeout: float = 15.0) -> Done:
        """A short script there, in the C locale, with root's programs in its path."""
        return self.machine.run(f"export LC_ALL=C {PATH}\n{script}", timeout)

    def words_of(self, script: str, timeout: float = 15.0) -> str:
        """What a short script prints."""
        said = self.run(script, timeout).stdout[: limits.MACHINE_WORDS.most]
        return said.decode(errors="replace").strip()

    def service(self, verb: str, name: str) -> str:
        """The command that starts or restarts a service there."""
        manager = f"systemctl {verb} {name}" if self.has_systemd else f"service {name} {verb}"
        return f"{self.sudo}{manager}"

    def pccpipe(self, command: str) -> str:
        """A command of pccpipe's own for this project."""
        path = self.chart.project.path
        return f"pccpipe {command}{f' --project {shlex.quote(str(path))}' if path else ''}"

    def close(self) -> None:
        # The check that is waited for no longer may still have its container.
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
        # The settings here name an engine elsewhere.
        return Unavailable(Reason.ENGINE_MISSING, error.message, error.hint)
    return None
