"""What a container has, by the engine's own account: nothing here is what was merely asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pccpipe.docker_api.settings import WORKSPACE
from pccpipe.machine.answers import number_or_none
from pccpipe.outcome import Place
from pccpipe.target import Isolation
from pccpipe.values import Json

MOST_HIDDEN, LONGEST_HIDDEN = 200, 300
"""Of the names of hidden files in a record, and of the characters of one."""
_DEFAULT = frozenset(
    {"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD"}
    | {"NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"}
)
"""The capabilities that a container has unless they are dropped."""
_NAMESPACES = {
    "network": "NetworkMode",
    "pid": "PidMode",
    "ipc": "IpcMode",
    "uts": "UTSMode",
    "user": "UsernsMode",
}


def isolation_of(host: str, name: str, found: Mapping[str, Json], engine: tuple[str, ...] | None) -> Isolation:
    """The isolation of a container, by what the engine says of it: hardly anything, if it could not be asked.

    Args:
        engine: what confines all of the engine's containers; None if that is not known.
    """
    if not found:
        return Isolation(Place.CONTAINER, host, user="", container=name)
    config, settings = part(found, "Config"), part(found, "HostConfig")
    # The engine tells them in any order.
    mounts = tuple(sorted(_mounts(found, settings), key=lambda mount: mount.split(":")[1]))
    return Isolation(
        place=Place.CONTAINER,
        host=host,
        user=str(config.get("User") or "0:0"),
        container=name,
        image=_text(config.get("Image")),
        image_digest=_text(found.get("Image")),
        network=_text(settings.get("NetworkMode")),
        workspace=WORKSPACE,
        read_only_workspace=any(mount.endswith(f":{WORKSPACE}:ro") for mount in mounts),
        memory=_number(settings.get("Memory")),
        cpus=(_number(settings.get("NanoCpus")) or 0) / 1e9 or None,
        pids=_number(settings.get("PidsLimit")),
        runtime=_text(settings.get("Runtime")),
        read_only_root=settings.get("ReadonlyRootfs") is True,
        init=settings.get("Init") is True,
        capabilities=_capabilities(settings),
        security=tuple(_security(found, settings, engine)),
        mounts=mounts,
        hidden=_hidden(found),
        shared=tuple(name for name, key in _NAMESPACES.items() if settings.get(key) == "host"),
    )


def engine_options(info: Mapping[str, Json]) -> tuple[str, ...]:
    """What confines all containers of an engine, by its answer to `info`: `seccomp=builtin`, `rootless`, ..."""
    options = []
    for option in _list(info.get("SecurityOptions")):
        fields = dict(field.partition("=")[::2] for field in str(option).split(","))
        name, profile = fields.get("name", ""), fields.get("profile")
        options.append(f"{name}={profile}" if profile else name)
    return tuple(options)


def part(found: Mapping[str, Json], *keys: str) -> dict[str, Json]:
    """The mapping at that place of an answer; an empty one if there is none."""
    at: Json = dict(found)
    for key in keys:
        at = at.get(key) if isinstance(at, dict) else None
    return at if isinstance(at, dict) else {}


def _capabilities(settings: Mapping[str, Json]) -> tuple[str, ...]:
    if settings.get("Privileged") is True:
        return ("ALL",)
    dropped = {str(name).upper().removeprefix("CAP_") for name in _list(settings.get("CapDrop"))}
    given = sorted(str(name).upper().removeprefix("CAP_") for name in _list(settings.get("CapAdd")))
    # Podman says ALL as one by one.
    return tuple(given if "ALL" in dropped or dropped >= _DEFAULT else ["DEFAULT", *given])


def _security(found: Mapping[str, Json], settings: Mapping[str, Json], engine: tuple[str, ...] | None) -> Iterator[str]:
    own = [str(option).replace(":", "=", 1) for option in _list(settings.get("SecurityOpt"))]
    yield from own
    profile = _text(found.get("AppArmorProfile"))
    if profile and not any(option.startswith("apparmor=") for option in own):
        yield f"apparmor={profile}"
    for option in engine or ():
        # The engine's filter of system calls is what a container has that says nothing else; AppArmor's it names.
        if not option.startswith("apparmor") and not (option.startswith("seccomp") and _names_seccomp(own)):
            yield option
    if engine is not None and not _names_seccomp([*own, *engine]):
        yield "seccomp=none"


def _names_seccomp(options: list[str]) -> bool:
    return any(option.startswith("seccomp=") for option in options)


def _mounts(found: Mapping[str, Json], settings: Mapping[str, Json]) -> Iterator[str]:
    for mount in _list(found.get("Mounts")):
        if isinstance(mount, dict) and _hidden_by(mount) is None:
            source = mount.get("Source") or mount.get("Name") or mount.get("Type")
            yield f"{source}:{mount.get('Destination')}:{'rw' if mount.get('RW') else 'ro'}"
    for folder, options in part(settings, "Tmpfs").items():
        yield f"tmpfs:{folder}:{options}"


def _hidden(found: Mapping[str, Json]) -> tuple[str, ...]:
    """Name what of the workspace is hidden. A stranger chose the names: not more than a record is to keep."""
    mounts = [_hidden_by(mount) for mount in _list(found.get("Mounts")) if isinstance(mount, dict)]
    paths = sorted(path for path in mounts if path is not None)
    kept = [path if len(path) <= LONGEST_HIDDEN else f"{path[:LONGEST_HIDDEN]}..." for path in paths[:MOST_HIDDEN]]
    return (*kept, *([f"{len(paths) - MOST_HIDDEN} more"] if len(paths) > MOST_HIDDEN else []))


def _hidden_by(mount: Mapping[str, Json]) -> str | None:
    """The path in the workspace that a mount lies over; None if it is one of the usual mounts."""
    inside = f"{WORKSPACE}/"
    where = str(mount.get("Destination"))
    return where.removeprefix(inside) if where.startswith(inside) else None


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Json) -> int | None:
    # What is out of bounds no container has; to the engine 0 is no limit.
    return number_or_none(value, 2**63 - 1) or None
