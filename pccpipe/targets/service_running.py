"""A service that runs in a container: its addresses, the wait until it is ready, and its end."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from pccpipe import limits
from pccpipe.cancel import Halt
from pccpipe.docker_api.engine import DockerEngine
from pccpipe.docker_api.isolation import part
from pccpipe.docker_api.problems import ApiCall
from pccpipe.docker_api.service_settings import FORWARD
from pccpipe.docker_api.settings import SHELL
from pccpipe.errors import Lost, Unavailable
from pccpipe.machine.answers import number_or_none
from pccpipe.machine.base import left_there
from pccpipe.machine.retry import UNREACHABLE, retrying
from pccpipe.outcome import Place, Reason
from pccpipe.service import NotReady, ServiceAddress, ServiceCommand
from pccpipe.target import Running, Token
from pccpipe.targets.container_running import DRAIN, ContainerRunning
from pccpipe.values import Json, cut

LOOK_EVERY = 0.5
"""Seconds between two looks at a service that has no check of its own."""
CHECK_LIMIT = 30.0
"""Seconds for one attempt of a check."""
REMOVE_LIMIT = 15.0
"""Seconds for which the engine may stay away at the end; then the rest is left to the run's end, or to `gc`."""


class Forwarder(Struct, frozen=True):
    """The container that passes a service's ports on."""

    container: str
    address: str
    """The service's, in its own network."""
    ports: Mapping[int, int] = field(default_factory=dict)
    """The loopback port of the engine's machine, by the service's own."""


class ServiceRef(Struct, frozen=True):
    """A service's container and networks."""

    service: str
    container: str
    title: str
    """The name of the container."""
    networks: tuple[str, ...]
    """The names of its owner's networks; the first is the one without a way out."""
    forwarder: Forwarder | None = None

    @property
    def token(self) -> Token:
        """Return the data that finds it again; see `from_token`."""
        token: Token = {
            "service": self.service,
            "container": self.container,
            "name": self.title,
            "networks": list(self.networks),
        }
        if self.forwarder:
            ports: dict[str, Json] = {str(own): port for own, port in self.forwarder.ports.items()}
            token["forwarder"] = {
                "container": self.forwarder.container,
                "address": self.forwarder.address,
                "ports": ports,
            }
        return token

    @staticmethod
    def from_token(token: Token) -> ServiceRef:
        """Read it from a record. Raises `Lost`."""
        match token:
            case {"service": str(service), "container": str(container), "name": str(title), "networks": list(networks)}:
                forwarder = _forwarder(token.get("forwarder"))
                return ServiceRef(service, container, title, tuple(map(str, networks)), forwarder)
            case _:
                raise Lost(f"the record does not say in which container the service runs: {token}")


class StartedService:
    """A `RunningService`.

    Args:
        outside: the places whose commands reach the loopback ports of the engine's machine.
        when_removed: forgets it, and removes the networks of its owner if nothing else is in them.
    """

    def __init__(
        self,
        engine: DockerEngine,
        ref: ServiceRef,
        running: ContainerRunning,
        service: ServiceCommand,
        outside: frozenset[Place],
        lost_after: float,
        when_removed: Callable[[ServiceRef], None],
    ) -> None:
        self._engine = engine
        self._ref = ref
        self._running = running
        self._service = service
        self._outside = outside
        self._lost_after = lost_after
        self._when_removed = when_removed
        self._lock = threading.Lock()
        self._is_removed = False

    @property
    def name(self) -> str:
        return self._ref.service

    @property
    def token(self) -> Token:
        return self._ref.token

    @property
    def network(self) -> str:
        return self._ref.networks[0] if self._ref.networks else ""

    @property
    def running(self) -> Running:
        return self._running

    def at(self, place: Place) -> ServiceAddress | None:
        if place is Place.CONTAINER:
            return ServiceAddress(self.name, {port: port for port in self._service.ports})
        if place not in self._outside:
            return None
        return ServiceAddress("127.0.0.1", self._ref.forwarder.ports if self._ref.forwarder else {})

    def wait_ready(self, halt: Halt) -> NotReady | None:
        check = self._service.ready
        limit = check.timeout if check else self._service.ready_timeout
        until = time.monotonic() + limit
        while True:
            halt.check()
            found = self._account(halt)
            if part(found, "State").get("Running") is not True:
                return replace(_ended(found), output=self._last_output())
            is_ready, words = self._look(found)
            if is_ready:
                return None
            if time.monotonic() >= until:
                return NotReady(f"it was not ready within {limit:g} s: {words}")
            halt.wait(min(check.every if check else LOOK_EVERY, max(0.0, until - time.monotonic())))

    def end(self, grace: float) -> str:
        with self._lock:
            if self._is_removed:
                return ""
            try:
                retrying(lambda: self._end(grace), REMOVE_LIMIT, may_retry=_is_away)
                self._is_removed = True
                words, fix = "", ""
            except Lost as lost:
                words, fix = lost.words, "pccpipe gc"
            except Unavailable as error:
                words, fix = error.words, f"docker rm -f {self._ref.container[:12]}, there"
        host = self._engine.machine.host
        return left_there(host, f"the service {self.name} ({self._ref.title})", words, fix) if words else ""

    def _end(self, grace: float) -> None:
        """Stop it as its image says, let its reader see the end, and remove it. Raises `Unavailable`."""
        if part(self._engine.inspect(self._ref.container) or {}, "State").get("Running") is True:
            seconds = math.ceil(grace)
            self._engine.ask(ApiCall.OTHER, lambda client: client.stop(self._ref.container, timeout=seconds))
        until = time.monotonic() + DRAIN
        while self._running.is_followed and time.monotonic() < until:
            time.sleep(0.02)
        for container in (self._ref.forwarder.container if self._ref.forwarder else "", self._ref.container):
            if container:
                self._engine.remove(container)
        self._when_removed(self._ref)

    def _last_output(self) -> str:
        """Return the end of its output; empty while the engine is away."""
        try:
            lines = limits.CONTAINER_WORDS.most // 80
            container = self._ref.container
            said: object = self._engine.ask(
                ApiCall.OTHER, lambda client: client.logs(container, tail=lines, stream=False)
            )
        except UNREACHABLE:
            return ""
        return said.decode("utf-8", "replace")[-limits.CONTAINER_WORDS.most :] if isinstance(said, bytes) else ""

    def _account(self, halt: Halt) -> Mapping[str, Json]:
        """Return the engine's account of it; empty if it is gone. Raises `Lost`, Halted."""
        container = self._ref.container
        return retrying(lambda: self._engine.inspect(container), self._lost_after, wait=halt.wait) or {}

    def _look(self, found: Mapping[str, Json]) -> tuple[bool, str]:
        """Say whether it is ready now, and if not, why. Raises `Lost`, `Unavailable`."""
        forwarder = self._ref.forwarder
        if self._service.ready:
            code = self._run(self._ref.container, [SHELL, "-c", self._service.ready.run])
            return code == 0, "its check did not end" if code is None else f"its check exited with {code}"
        if health := part(found, "State", "Health"):
            status = str(health.get("Status"))
            return status == "healthy", f"its health check says {cut(status, 40)}{_last_words(health)}"
        if self._service.ports and forwarder:
            port = self._service.ports[0]
            code = self._run(forwarder.container, [FORWARD, "check", forwarder.address, str(port)])
            return code == 0, f"nothing listens on its port {port}"
        return True, ""

    def _run(self, container: str, words: Sequence[str]) -> int | None:
        """Run a program in a container, and return its exit code; None if it did not end in time."""
        try:
            made = self._engine.id_of(
                self._engine.ask(ApiCall.OTHER, lambda client: client.exec_create(container, list(words)))
            )
            self._engine.ask(ApiCall.OTHER, lambda client: client.exec_start(made, detach=True))
            until, pause = time.monotonic() + CHECK_LIMIT, 0.02
            while time.monotonic() < until:
                time.sleep(pause)
                pause = min(pause * 1.5, LOOK_EVERY)
                said: Json = self._engine.ask(ApiCall.OTHER, lambda client: client.exec_inspect(made))
                if isinstance(said, dict) and said.get("Running") is not True:
                    return number_or_none(said.get("ExitCode"))
        except Unavailable as error:
            # The container has just ended, or the engine is away for a moment: the next look says which.
            if error.reason is not Reason.ENGINE_ERROR and not _is_away(error):
                raise
        return None


def _forwarder(kept: Json) -> Forwarder | None:
    match kept:
        case {"container": str(container), "address": str(address), "ports": dict(ports)}:
            # JSON has no numbers as keys.
            numbers = {number_or_none(own): number_or_none(port) for own, port in ports.items()}
            return Forwarder(container, address, {own: port for own, port in numbers.items() if own and port})
        case _:
            return None


def _is_away(error: Exception) -> bool:
    return not isinstance(error, Unavailable) or error.reason in (
        Reason.ENGINE_STOPPED,
        Reason.ENGINE_NOT_ANSWERING,
        Reason.ENGINE_MISSING,
    )


def _ended(found: Mapping[str, Json]) -> NotReady:
    state = part(found, "State")
    code = number_or_none(state.get("ExitCode"))
    if not state or code is None:
        return NotReady("its container is gone")
    why = ": killed: out of memory" if state.get("OOMKilled") is True else ""
    return NotReady(f"it ended with exit code {code}{why}", exit_code=code)


def _last_words(health: Mapping[str, Json]) -> str:
    log = health.get("Log")
    last = log[-1] if isinstance(log, list) and log else None
    said = str(last.get("Output")).strip() if isinstance(last, dict) else ""
    return f": {cut(said, limits.CONTAINER_WORDS.most)}" if said else ""
