"""The seam between the executor and the containers that live beside a step or group: databases and other servers.

Order of calls: `ServiceHost.start` once for an owner (or, after a crash, `attach` for each service), then one thread
reads each service's output, `wait_ready` says when it can be used, and `end` removes it. `ServiceHost.close` comes
last and removes what is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

from msgspec import Struct, field

from pccpipe.cancel import Halt
from pccpipe.outcome import Place
from pccpipe.target import Running, Token
from pccpipe.values import Discreet

SECRETS = "/run/secrets"
"""The folder in a service's memory with its secrets: one file a secret, as the `*_FILE` variables of images expect."""


class ReadyCheck(Struct, frozen=True):
    """A script that runs in the service until it succeeds. Times in seconds."""

    run: str
    every: float = 1.0
    timeout: float = 60.0


class ServiceCommand(Discreet, frozen=True):
    """One service, ready to start: plain data, every expression already evaluated."""

    hidden: ClassVar[frozenset[str]] = frozenset({"secrets"})

    name: str
    """The name at which other containers of the owner reach it."""
    image: str
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Files below `SECRETS`; never in the environment, which `docker inspect` shows."""
    command: tuple[str, ...] | None = None
    """Replaces the image's own command; None: the image's own."""
    ports: tuple[int, ...] = ()
    """The ports that commands outside of containers reach; the first one also says that the service is ready."""
    ready: ReadyCheck | None = None
    """None: the image's health check, else the first port is open."""
    ready_timeout: float = 60.0
    """Seconds to become ready without `ready`."""
    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None
    shm_size: int | None = None
    capabilities: tuple[str, ...] = ()
    network: str = "none"
    """`none`: no way out; `bridge`: the engine's own way out."""
    loosened: tuple[str, ...] = ()
    """The settings that are looser than those of a step's container, as people write them."""


class ServiceOwner(Struct, frozen=True):
    """The step or group beside which services run."""

    path: str
    """Its path in the run: `iterate[2].tests`."""
    serial: int = 1
    """The number of its attempt: an attempt finds nothing of the one before."""
    limit: float = 6 * 3600.0
    """Seconds after which `gc` may remove its services, if no process of the run came back."""


class ServiceAddress(Struct, frozen=True):
    """An address of a service."""

    host: str
    ports: Mapping[int, int] = field(default_factory=dict)
    """The port to connect to, by the service's own port."""


class NotReady(Struct, frozen=True):
    """The reason why a service did not become ready."""

    words: str
    """A sentence: it ended with exit code 1; its check failed for 60 s."""
    output: str = ""
    """The end of the service's output, if it ended; not masked."""
    exit_code: int | None = None
    """The service's exit code, if it ended."""


class RunningService(Protocol):
    """A service that was started. One thread reads `running` to its `Exit`; others may call the rest."""

    @property
    def name(self) -> str: ...

    @property
    def token(self) -> Token:
        """The data with which `ServiceHost.attach` finds it after a crash."""
        ...

    @property
    def network(self) -> str:
        """The owner's network, for `Command.network`; the same for all services of an owner."""
        ...

    @property
    def running(self) -> Running:
        """Its output from the first byte, its end, its isolation. `fetch` and `discard` are not for services."""
        ...

    def at(self, place: Place) -> ServiceAddress | None:
        """Return its address for commands at a place; None if commands there cannot reach it."""
        ...

    def wait_ready(self, halt: Halt) -> NotReady | None:
        """Wait until it is ready; return why not if it ends or its time is over. Raises Halted, `Unavailable`, Lost."""
        ...

    def end(self, grace: float) -> str:
        """Stop and remove it with its anonymous volumes, and its network after the owner's last service.

        Idempotent; never raises. Return, in words, what could not be removed; empty if nothing is left.
        """
        ...


class ServiceHost(Protocol):
    """Starts services on the engine that `on: container` leads to. Safe from many threads."""

    def start(self, owner: ServiceOwner, services: Sequence[ServiceCommand]) -> Sequence[RunningService]:
        """Start the services of an owner, in this order. It replaces what an earlier process began for this owner.

        If one cannot start, nothing of the owner is left. Raises `Unavailable` (without an engine, without the image),
        `Refused` for settings that the engine never takes.
        """
        ...

    def attach(self, token: Token, service: ServiceCommand) -> RunningService:
        """Return a service that another process started. Raises `Unavailable`, `Lost` if the engine has it no more."""
        ...
