"""Makes services of checked plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from pccpipe.limits import SERVICE_LOG
from pccpipe.spec import units
from pccpipe.spec.build_container import DEFAULT_PIDS, UNLIMITED
from pccpipe.spec.build_values import ValueBuilder, string, whole
from pccpipe.spec.data import listed, mapping
from pccpipe.spec.position import KeyPath
from pccpipe.spec.ready import build_ready
from pccpipe.spec.services import CAPABILITIES, Service
from pccpipe.spec.source import Source
from pccpipe.values import Json

MEMORY = "1g"


def build_services(source: Source, path: KeyPath, services: Json) -> dict[str, Service]:
    """Make the services of a step, by name, of checked plain data."""
    return {name: _service(source, (*path, name), name, mapping(spec)) for name, spec in mapping(services).items()}


def _service(source: Source, path: KeyPath, name: str, spec: Mapping[str, Json]) -> Service:
    make = ValueBuilder(source)
    words = enumerate(listed(spec.get("command")))
    capabilities = listed(spec["capabilities"]) if "capabilities" in spec else CAPABILITIES
    return Service(
        name=name,
        image=make.template((*path, "image"), spec["image"]),
        position=source.of_key(path),
        env=make.templates((*path, "env"), spec.get("env")),
        secrets=tuple(string(each) for each in listed(spec.get("secrets"))),
        command=tuple(make.template((*path, "command", index), word) for index, word in words)
        if "command" in spec
        else None,
        ports=tuple(whole(port) for port in listed(spec.get("ports"))),
        ready=build_ready(source, (*path, "ready"), spec.get("ready")),
        memory=None if spec.get("memory") == UNLIMITED else _size(spec.get("memory", MEMORY)),
        cpus=cast("float | None", spec.get("cpus")),
        pids=None if spec.get("pids") == UNLIMITED else whole(spec.get("pids", DEFAULT_PIDS)),
        shm_size=_size(spec["shm_size"]) if "shm_size" in spec else None,
        capabilities=tuple(sorted(string(each) for each in capabilities)),
        network=string(spec.get("network", "none")),
        log_limit=_size(spec.get("log_limit", SERVICE_LOG.most)),
    )


def _size(value: Json) -> int:
    return units.size(cast("str | int", value))
