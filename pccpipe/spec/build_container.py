"""Makes the settings of a container from its keys, and names those that are looser than the default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from msgspec.structs import replace

from pccpipe.spec import units
from pccpipe.spec.data import listed
from pccpipe.target import ContainerSettings
from pccpipe.values import Json

Map = Mapping[str, Json]
DEFAULT_MEMORY, DEFAULT_PIDS, DEFAULT_HOME = "4g", 2048, "1g"
"""A container's default limits, so that a runaway agent does not take down the VM."""
UNLIMITED = "unlimited"


def container_settings(spec: Map) -> ContainerSettings:
    """Return the settings of a container with all of its own and extended keys; its image may be an expression."""
    settings = ContainerSettings(
        image="",
        network=str(spec.get("network", "bridge")),
        memory=_size(spec.get("memory", DEFAULT_MEMORY)),
        cpus=cast("float | None", spec.get("cpus")),
        pids=None if spec.get("pids") == UNLIMITED else int(cast("float", spec.get("pids", DEFAULT_PIDS))),
        home_size=units.size(cast("str | int", spec.get("home_size", DEFAULT_HOME))),
        read_only_workspace=spec.get("workspace") == "read-only",
        read_only_root=spec.get("read_only_root") is True,
        runtime=cast("str | None", spec.get("runtime")),
        root=spec.get("user") == "root",
        capabilities=_capabilities(spec),
        new_privileges=spec.get("new_privileges") is True,
        seccomp=spec.get("seccomp") != "unconfined",
        apparmor=spec.get("apparmor") != "unconfined",
        init=spec.get("init") is not False,
    )
    return replace(settings, loosened=_loosened(settings))


def _loosened(settings: ContainerSettings) -> tuple[str, ...]:
    """Name the settings that are weaker than the defaults, as the pipeline writes them."""
    loose = {
        "network: host": settings.network == "host",
        "memory: unlimited": settings.memory is None,
        "pids: unlimited": settings.pids is None,
        "user: root": settings.root,
        f"capabilities: [{', '.join(settings.capabilities)}]": bool(settings.capabilities),
        "new_privileges: true": settings.new_privileges,
        "seccomp: unconfined": not settings.seccomp,
        "apparmor: unconfined": not settings.apparmor,
        "init: false": not settings.init,
    }
    return tuple(text for text, is_so in loose.items() if is_so)


def _capabilities(spec: Map) -> tuple[str, ...]:
    given = {str(name) for name in listed(spec.get("capabilities"))}
    # The workspace's owner owns a step's files: without this capability, root can't even read the step's script.
    return tuple(sorted(given | {"DAC_OVERRIDE"} if spec.get("user") == "root" else given))


def _size(value: Json) -> int | None:
    return None if value == UNLIMITED else units.size(cast("str | int", value))
