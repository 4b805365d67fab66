"""The networks of an engine that services need: one without a way out, and one for published ports.

An `internal` network of Docker still gives the machine an address in it, at which its containers reach every service of
the machine that listens on all addresses. `inhibit_ipv4` leaves that address out. Then nothing outside of the network
reaches its containers either, so a forwarder with a foot in both networks passes the published ports on.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

import docker.errors

from pccpipe.docker_api.engine import DockerEngine
from pccpipe.docker_api.problems import ApiCall
from pccpipe.errors import Nonsense, Unavailable
from pccpipe.machine.answers import text
from pccpipe.outcome import Reason
from pccpipe.values import Json

BRIDGE = "bridge"
"""The engine's own network, with its way out."""
_OPTION = "com.docker.network.bridge"
_POOLS = "no subnet is left there: docker network prune, or more `default-address-pools` in /etc/docker/daemon.json"


class NetworkKind(Enum):
    """The purposes of a network of services."""

    CLOSED = "closed"
    """Its containers reach each other alone."""
    PORTS = "ports"
    """Of forwarders: the machine's loopback ports lead to them. They cannot reach each other."""
    OUT = "out"
    """With the engine's way out."""

    @property
    def options(self) -> dict[str, str]:
        """Return the options of the engine's bridge driver."""
        match self:
            case NetworkKind.CLOSED:
                return {f"{_OPTION}.inhibit_ipv4": "true"}
            case NetworkKind.PORTS:
                options = {"enable_icc": "false", "enable_ip_masquerade": "false", "host_binding_ipv4": "127.0.0.1"}
                return {f"{_OPTION}.{name}": value for name, value in options.items()}
            case NetworkKind.OUT:
                return {}


class Networks:
    """Makes and removes networks of an engine. Safe from many threads."""

    def __init__(self, engine: DockerEngine) -> None:
        self._engine = engine

    def make(self, name: str, kind: NetworkKind, labels: Mapping[str, str]) -> None:
        """Make a network of a name that no other has. Raises `Unavailable`."""
        try:
            self._engine.ask(
                ApiCall.OTHER,
                lambda client: client.create_network(
                    name,
                    driver=BRIDGE,
                    options=kind.options,
                    internal=kind is NetworkKind.CLOSED,
                    labels=dict(labels),
                ),
            )
        except Unavailable as error:
            if error.reason is Reason.ENGINE_ERROR and "address pool" in error.words:
                raise Unavailable(error.reason, error.words, _POOLS) from error
            raise

    def listed(self, labels: Mapping[str, str]) -> dict[str, str]:
        """Return the names of the networks with these labels, by id. Raises `Unavailable`."""
        made = self.accounts(*(f"{key}={value}" for key, value in labels.items()))
        return {self._id_of(each): str(each.get("Name")) for each in made}

    def accounts(self, *labels: str) -> list[dict[str, Json]]:
        """List the networks with these labels (`NAME` or `NAME=VALUE`); labels prove nothing. Raises `Unavailable`."""
        filters = {"label": list(labels)}
        made: Json = self._engine.ask(ApiCall.OTHER, lambda client: client.networks(filters=filters))
        if not isinstance(made, list):
            raise Nonsense(self._engine.machine.host, "list of networks", made)
        return [each for each in made if isinstance(each, dict)]

    def join(self, network: str, container: str) -> None:
        """Connect a container that does not run yet. Raises `Unavailable`."""
        self._engine.ask(ApiCall.OTHER, lambda client: client.connect_container_to_network(container, network))

    def remove(self, network: str) -> bool:
        """Remove a network; return False if a container is in it. Raises `Unavailable`."""

        def remove(client: docker.APIClient) -> bool:
            try:
                client.remove_network(network)
            except docker.errors.NotFound:
                return True
            except docker.errors.APIError as error:
                if error.status_code != 403:
                    raise
                return False
            return True

        return self._engine.ask(ApiCall.OTHER, remove)

    def _id_of(self, made: Json) -> str:
        if not isinstance(made, dict):
            raise Nonsense(self._engine.machine.host, "account of a network", made)
        return text(self._engine.machine.host, "id of a network", made.get("Id"), 100)
