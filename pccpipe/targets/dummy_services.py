"""A host of services that plays a script: it tests the executor without an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct, field

from pccpipe.cancel import Halt
from pccpipe.errors import Lost, Unavailable
from pccpipe.outcome import Place
from pccpipe.service import NotReady, RunningService, ServiceAddress, ServiceCommand, ServiceOwner
from pccpipe.target import Command, Running, Token
from pccpipe.targets.dummy import DummyTarget, Play


class ServicePlay(Struct, frozen=True):
    """The behaviour of one service."""

    unavailable: Unavailable | None = None
    """`start` raises this, and nothing of the owner begins."""
    not_ready: NotReady | None = None
    play: Play = field(default_factory=lambda: Play(lasts=1e9))
    """Its output, and its end if it ends by itself."""


class DummyServices:
    """A `ServiceHost`; keeps the started commands, and the names of those that nobody ended in `left`."""

    def __init__(self, script: Callable[[ServiceCommand], ServicePlay] | None = None) -> None:
        self._script = script or (lambda _: ServicePlay())
        self.started: list[tuple[ServiceOwner, ServiceCommand]] = []
        self.left: dict[str, ServiceCommand] = {}
        """By the owner's path, its serial and the service's name."""

    def start(self, owner: ServiceOwner, services: Sequence[ServiceCommand]) -> list[RunningService]:
        for key in [key for key in self.left if key.startswith(f"{owner.path}#")]:
            del self.left[key]
        for service in services:
            if no := self._script(service).unavailable:
                raise no
        self.started += [(owner, service) for service in services]
        made: list[RunningService] = []
        for service in services:
            key = f"{owner.path}#{owner.serial}/{service.name}"
            self.left[key] = service
            made.append(_PlayedService(key, service, self._script(service), self.left))
        return made

    def attach(self, token: Token, service: ServiceCommand) -> RunningService:
        key = str(token.get("key"))
        if key not in self.left:
            raise Lost(f"no service {key} is known")
        return _PlayedService(key, service, self._script(service), self.left)


class _PlayedService:
    def __init__(self, key: str, service: ServiceCommand, play: ServicePlay, left: dict[str, ServiceCommand]) -> None:
        self._key = key
        self._service = service
        self._play = play
        self._left = left
        target = DummyTarget(Place.CONTAINER, lambda _: play.play)
        self._running = target.start(Command(key, service.name, 1, ""))

    @property
    def name(self) -> str:
        return self._service.name

    @property
    def token(self) -> Token:
        return {"key": self._key}

    @property
    def network(self) -> str:
        return f"network-of-{self._key.partition('/')[0]}"

    @property
    def running(self) -> Running:
        return self._running

    def at(self, place: Place) -> ServiceAddress | None:
        if place is Place.CONTAINER:
            return ServiceAddress(self.name, {port: port for port in self._service.ports})
        return ServiceAddress("127.0.0.1", {port: 40000 + index for index, port in enumerate(self._service.ports)})

    def wait_ready(self, halt: Halt) -> NotReady | None:
        halt.check()
        return self._play.not_ready

    def end(self, grace: float) -> str:
        self._left.pop(self._key, None)
        self._running.stop(grace)
        return ""
