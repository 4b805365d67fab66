"""Starts the services of steps and groups on an engine, finds them again, and removes what is left of them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from pccpipe.detached.programs import RunDir
from pccpipe.docker_api.engine import DockerEngine
from pccpipe.docker_api.isolation import isolation_of, part
from pccpipe.docker_api.networks import NetworkKind, Networks
from pccpipe.docker_api.problems import ApiCall
from pccpipe.docker_api.service_settings import (
    forward_archive,
    forwarder_body,
    secrets_program,
    service_body,
    service_labels,
    thing_name,
)
from pccpipe.errors import Lost, Refused, Unavailable
from pccpipe.machine.answers import PORTS, number
from pccpipe.machine.base import left_there
from pccpipe.machine.retry import UNREACHABLE
from pccpipe.outcome import Place, Reason
from pccpipe.service import RunningService, ServiceCommand, ServiceOwner
from pccpipe.target import Token
from pccpipe.targets.container_exit import ContainerRef
from pccpipe.targets.container_running import ContainerRunning
from pccpipe.targets.service_running import Forwarder, ServiceRef, StartedService
from pccpipe.values import Json


class EngineServices:
    """A `ServiceHost`. Safe from many threads.

    Args:
        run_dir: the run's folder on the engine's machine: with the run's id, it tells the run's services from others.
        outside: the places whose commands reach the machine's loopback ports.
        lost_after: seconds for which the engine may stay away before a service counts as lost.
        check: says whether the machine is still the run's. Raises `Fenced`.
    """

    def __init__(
        self,
        engine: DockerEngine,
        run_dir: RunDir,
        outside: frozenset[Place],
        lost_after: float,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._networks = Networks(engine)
        self._run_dir = run_dir
        self._outside = outside
        self._lost_after = lost_after
        self._check = check
        self._lock = threading.Lock()
        self._living: dict[str, None] = {}
        self._takes_over = False
        self._is_closed = False

    def take_over(self) -> None:
        """Count the services of another process of this run as this one's."""
        self._takes_over = True

    def containers(self) -> list[str]:
        """Return the ids of the containers of the run's services. Raises `Unavailable` in a resumed run."""
        if self._takes_over:
            found = dict.fromkeys(self._engine.listed(self._labels()))
            with self._lock:
                self._living |= found
            self._takes_over = False
        with self._lock:
            return list(self._living)

    def start(self, owner: ServiceOwner, services: Sequence[ServiceCommand]) -> list[RunningService]:
        self._engine.open()
        self._check()
        for image in dict.fromkeys(service.image for service in services):
            if not self._engine.has_image(image):
                host = self._engine.machine.host
                words, hint = f"the engine of {host} has no image {image}", f"on that engine: docker pull {image}"
                raise Unavailable(Reason.IMAGE_MISSING, words, hint)
        labels = self._labels(owner)
        self.remove(labels)
        started: list[RunningService] = []
        try:
            networks = [self._network(owner, NetworkKind.CLOSED)]
            if any(each.network != "none" for each in services):
                networks.append(self._network(owner, NetworkKind.OUT))
            for service in services:
                started.append(self._start(owner, service, tuple(networks)))
                if self._is_closed:
                    raise Unavailable(Reason.START_REFUSED, "the run has ended")
        except BaseException:
            for each in started:
                each.running.let_go()
            with contextlib.suppress(*UNREACHABLE):
                self.remove(labels)
            raise
        return started

    def attach(self, token: Token, service: ServiceCommand) -> RunningService:
        ref = ServiceRef.from_token(token)
        found = self._engine.inspect(ref.container)
        if found is None:
            raise Lost(f"the container {ref.title} is gone from the engine of {self._engine.machine.host}")
        if part(found, "State").get("Running") is not True:
            raise Lost(f"the container {ref.title} has ended")
        return self._running(ref, found, service)

    def remove(self, labels: Mapping[str, str] | None = None) -> list[str]:
        """Remove all services of the run, or those with some labels, with volumes and networks.

        Return, in words, what the engine did not remove. Raises `Unavailable`, ConnectionError, TimeoutError.
        """
        labels = labels or self._labels()
        left: dict[str, str] = {}
        for container in self._engine.listed(labels):
            try:
                self._engine.remove(container)
                self._forget(container)
            except Unavailable as error:
                if error.reason is not Reason.ENGINE_ERROR:
                    raise
                left[f"the container {container[:12]}"] = f"{error.words}\0docker rm -f {container[:12]}, there"
        for network, title in self._networks.listed(labels).items():
            if not self._networks.remove(network):
                left[f"the network {title}"] = f"a container is in it\0docker network rm {network[:12]}, there"
        host = self._engine.machine.host
        return [left_there(host, what, *why.split("\0")) for what, why in left.items()]

    def close(self) -> None:
        """Start no more services: nobody would remove them."""
        self._is_closed = True

    def _start(self, owner: ServiceOwner, service: ServiceCommand, networks: tuple[str, ...]) -> RunningService:
        self._check_values(service)
        title = self._title(owner, service.name)
        labels = self._labels(owner)
        podman = self._engine.is_podman
        body = service_body(service, networks[0], labels, owner.limit, self._own_words(service), podman=podman)
        container = self._create(title, body, service.image)
        for out in networks[1:] if service.network != "none" else ():
            self._networks.join(out, container)
        if service.secrets:
            self._start_with_secrets(container, service)
        else:
            self._engine.ask(ApiCall.START, lambda client: client.start(container))
        found = self._engine.inspect(container) or {}
        address = _address_in(found, networks[0])
        forwarder = self._forward(owner, service, networks[0], address) if service.ports and address else None
        ref = ServiceRef(service.name, container, title, networks, forwarder)
        return self._running(ref, found, service)

    def _running(self, ref: ServiceRef, found: Mapping[str, Json], service: ServiceCommand) -> StartedService:
        with self._lock:
            self._living[ref.container] = None
        container = ContainerRef(self._engine, self._run_dir, ref.title, ref.container, ref.title, [])
        had = isolation_of(self._engine.machine.host, ref.title, found, self._engine.security_options())
        running = ContainerRunning(container, replace(had, workspace=""), None, self._lost_after, is_marked=False)
        return StartedService(self._engine, ref, running, service, self._outside, self._lost_after, self._removed)

    def _forward(self, owner: ServiceOwner, service: ServiceCommand, network: str, address: str) -> Forwarder:
        """Start the forwarder of a service's ports. Raises `Unavailable`."""
        architecture = str(self._engine.info().get("Architecture"))
        archive = forward_archive(architecture)
        if archive is None:
            words = f"the engine of {self._engine.machine.host} runs on {architecture}"
            hint = "leave out `ports:`, and run the step in a container: it reaches the service by name"
            raise Unavailable(Reason.START_REFUSED, words, hint)
        title = self._title(owner, f"{service.name}-ports")
        ports = self._network(None, NetworkKind.PORTS)
        body = forwarder_body(service, address, ports, self._labels(owner), owner.limit, podman=self._engine.is_podman)
        container = self._create(title, body, service.image)
        self._engine.ask(ApiCall.OTHER, lambda client: client.put_archive(container, "/", archive))
        self._networks.join(network, container)
        self._engine.ask(ApiCall.START, lambda client: client.start(container))
        bound = part(self._engine.inspect(container) or {}, "NetworkSettings", "Ports")
        known = {}
        for port in service.ports:
            match bound.get(f"{port}/tcp"):
                case [{"HostPort": chosen}, *_]:
                    known[port] = self._port(chosen)
                case _:
                    words = f"the engine of {self._engine.machine.host} published no loopback port for {port}"
                    raise Unavailable(Reason.START_REFUSED, words)
        return Forwarder(container, address, known)

    def _port(self, said: object) -> int:
        return number(self._engine.machine.host, "port of a service", said, PORTS)

    def _network(self, owner: ServiceOwner | None, kind: NetworkKind) -> str:
        """Make a network of an owner, or of all of the run's forwarders if there is none yet. Raises `Unavailable`."""
        kind_label = {"pccpipe.network": kind.value}
        if owner:
            title = self._title(owner, kind.value)
            self._networks.make(title, kind, self._labels(owner) | kind_label)
            return title
        with self._lock:
            labels, title = self._labels() | kind_label, self._title(ServiceOwner(""), kind.value)
            if title not in self._networks.listed(labels).values():
                self._networks.make(title, kind, labels)
            return title

    def _create(self, title: str, body: Mapping[str, Json], image: str) -> str:
        made: Json = self._engine.ask(
            ApiCall.CREATE,
            lambda client: client.create_container_from_config(body, title),  # type: ignore[no-untyped-call]
            image=image,
        )
        return self._engine.id_of(made)

    def _start_with_secrets(self, container: str, service: ServiceCommand) -> None:
        """Start it, and give its shell the secrets on stdin. Raises `Unavailable`, ConnectionError."""
        answer = self._engine.stream("POST", f"/containers/{container}/attach?stream=1&stdin=1", upgrade=True)
        with contextlib.closing(answer):
            self._engine.ask(ApiCall.START, lambda client: client.start(container))
            answer.stream.sendall(secrets_program(service.secrets))
            answer.stream.shutdown_write()

    def _own_words(self, service: ServiceCommand) -> tuple[list[str], list[str]]:
        """Return the image's own entrypoint and command, if secrets need them. Raises `Unavailable`, `Refused`."""
        if not service.secrets:
            return [], []
        entrypoint, command = self._engine.image_words(service.image)
        if not entrypoint and not (command if service.command is None else service.command):
            raise Refused(f"the image {service.image} has no command: the service `{service.name}` needs `command:`")
        return entrypoint, command

    def _check_values(self, service: ServiceCommand) -> None:
        values = (*service.env.values(), *service.secrets.values(), *(service.command or ()))
        if any("\0" in value for value in values):
            raise Refused(f"a NUL byte in the environment of the service `{service.name}`: no program can take that")

    def _title(self, owner: ServiceOwner, name: str) -> str:
        return thing_name(self._run_dir.run_id, self._run_dir.state, owner, name)

    def _labels(self, owner: ServiceOwner | None = None) -> dict[str, str]:
        return service_labels(self._run_dir.run_id, self._run_dir.state, owner)

    def _removed(self, ref: ServiceRef) -> None:
        """Forget a removed service, and remove its owner's networks if it was the last. Raises `Unavailable`."""
        self._forget(ref.container)
        for network in ref.networks:
            self._networks.remove(network)

    def _forget(self, container: str) -> None:
        with self._lock:
            self._living.pop(container, None)


def _address_in(found: Mapping[str, Json], network: str) -> str:
    """Return the address of a container in a network; empty if it does not run."""
    return str(part(found, "NetworkSettings", "Networks", network).get("IPAddress") or "")
