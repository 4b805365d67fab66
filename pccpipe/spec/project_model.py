"""A project file as data: the project's VM, its limits, and what of its records stays."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from pccpipe.limits import RUN_LOGS
from pccpipe.outcome import IsolationMode


class DayBudget(Struct, frozen=True):
    """The most that all runs of a project on this machine may take in a day; None for no limit."""

    tokens: int | None = None
    usd: float | None = None


class Vm(Struct, frozen=True):
    """A project's VM, and the way to it. Paths of keys are on this machine; `root` is on the VM."""

    external_ip: str
    user: str
    port: int = 22
    key_path: Path | None = None
    known_hosts: Path | None = None
    """The file of known host keys; None: ~/.ssh/known_hosts."""
    root: str = "/home/project"
    proxy_jump: str | None = None
    """The jump hosts in order: `[USER@]HOST[:PORT]`, separated by commas."""
    jump_key_path: Path | None = None
    """The key for the jump hosts; None: `key_path`."""
    run_as: str | None = None
    """The VM's account for `on: vm` steps; None: the login."""
    shared_home: tuple[str, ...] = ()
    """Folders on the VM that steps of the `run_as` account may read."""
    engine_socket: str | None = None
    """The socket of the VM's engine; None: the system's, or else the login's own."""


class Keep(Struct, frozen=True):
    """The records of ended runs that stay; None sets no bound."""

    days: int | None = None
    runs: int | None = None
    """The number of the newest runs."""
    only_copies: float | None = None
    """The seconds after which a record with the only copy of an agent's work may go; None: never."""


class Project(Struct, frozen=True):
    """The project file's settings. Without a file, everything is local."""

    id: str
    isolation_mode: IsolationMode
    vm: Vm | None = None
    isolation_required: bool = False
    lost_after: float = 600.0
    """The seconds that the VM or engine may be unreachable before its running step is lost."""
    log_quota: int = RUN_LOGS.most
    """The most bytes of all logs of a run together."""
    keep: Keep = Keep()
    budget_per_day: DayBudget = DayBudget()
    prices: Path | None = None
    """The file with the prices of models; None: the one that comes with pccpipe."""
    path: Path | None = None
    local: bool = False
    """True if everything runs on this machine by the operator's choice, not the file's."""

    @property
    def title(self) -> str:
        """Name the project and its file."""
        return f"project {self.id} ({self.path or 'no project file'})"
