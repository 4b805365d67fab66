"""Searches what an engine reports about its containers and images."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pccpipe import limits
from pccpipe.canary.ledger import Ledger, Spot
from pccpipe.canary.value import Canary
from pccpipe.docker_api.engine import DockerEngine
from pccpipe.docker_api.problems import ApiCall
from pccpipe.values import Json


class EngineLooker:
    """Search one engine, through its API.

    Args:
        where: the name of its machine in the ledger.
    """

    def __init__(self, engine: DockerEngine, where: str, canary: Canary, ledger: Ledger) -> None:
        self._engine = engine
        self._where = where
        self._canary = canary
        self._ledger = ledger

    def folder(self) -> str:
        """Return the engine's data folder. Raises `Unavailable`."""
        return str(self._engine.info().get("DockerRootDir", ""))

    def process_of(self, container: str) -> int:
        """Return the first process of a running container, on the engine's machine; 0 if it has none."""
        state = (self._engine.inspect(container) or {}).get("State")
        pid = state.get("Pid") if isinstance(state, dict) else 0
        return pid if isinstance(pid, int) else 0

    def containers(self) -> None:
        """Search `docker inspect` of every container, and the processes of running ones."""
        made = self._engine.containers()
        found = [each for one in made[: limits.SELFCHECK_MADE.most] if (each := self._engine.inspect(str(one["Id"])))]
        for each in found:
            self._check(Spot.INSPECT, str(each.get("Name")), each)
        self._looked(Spot.INSPECT, found, len(made))
        processes = [line for each in found if _is_running(each) for line in self._processes(each)]
        self._ledger.looked(self._where, Spot.CONTAINER_PROCESSES, len(processes))

    def images(self) -> None:
        """Search every image's configuration and history."""
        made = self._engine.ask(ApiCall.OTHER, lambda client: client.images(all=True))
        looked: list[dict[str, Json]] = []
        for one in made[: limits.SELFCHECK_MADE.most]:
            id_ = str(one["Id"])
            image: dict[str, Json] = {
                "config": self._engine.ask(ApiCall.OTHER, lambda client, id_=id_: client.inspect_image(id_)),  # type: ignore[misc]
                "history": self._engine.ask(ApiCall.OTHER, lambda client, id_=id_: client.history(id_)),  # type: ignore[misc]
            }
            looked.append(image)
            self._check(Spot.IMAGES, f"image {', '.join(one.get('RepoTags') or [id_[:19]])}", image)
        self._looked(Spot.IMAGES, looked, len(made))

    def _processes(self, container: dict[str, Json]) -> list[str]:
        id_, name = str(container["Id"]), container.get("Name")
        listed = self._engine.ask(ApiCall.OTHER, lambda client: client.top(id_, "-eo pid,args"))
        lines = [" ".join(map(str, words)) for words in listed.get("Processes") or []]
        if self._canary.is_in_any(lines):
            self._ledger.found(self._where, Spot.CONTAINER_PROCESSES, f"in {name}")
        return lines

    def _check(self, spot: Spot, name: str, answer: dict[str, Json]) -> None:
        if self._canary.is_in(_text(answer)):
            self._ledger.found(self._where, spot, name)

    def _looked(self, spot: Spot, answers: Sequence[dict[str, Json]], there: int) -> None:
        self._ledger.looked(self._where, spot, len(answers), sum(len(_text(each)) for each in answers))
        if there > limits.SELFCHECK_MADE.most:
            self._ledger.unread(self._where, spot, f"there are {there}, and {limits.SELFCHECK_MADE.most} were searched")


def _is_running(container: dict[str, Json]) -> bool:
    state = container.get("State")
    return isinstance(state, dict) and state.get("Running") is True


def _text(answer: dict[str, Json]) -> bytes:
    return json.dumps(answer, ensure_ascii=False).encode(errors="surrogateescape")
