"""Reads a container's isolation from the engine's own account, not from the request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pccpipe.docker_api.settings import WORKSPACE
from pccpipe.machine.answers import number_or_none
from pccpipe.outcome import Place
from pccpipe.target import Isolation
from pccpipe.values import Json

MOST_HIDDEN, LONGEST_HIDDEN = 200, 300
"""The most names of hidden files in a record, and the most characters of one."""
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
    """Return the isolation of a container; little of it if the engine's account `found` is empty.

    Args:
        engine: the options that confine all of the engine's containers; None if unknown.
    """
    if not found:
        return Isolation(Place.CONTAINER, host, user="", container=name)
    config, settings = part(found, "Config"), part(found, "HostConfig")
    # The engine lists them in any order.
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
    """Return the options that confine all containers, by the engine's `info`: `seccomp=builtin`, `rootless`, ..."""
    options = []
    for option in _list(info.get("SecurityOptions")):
        fields = dict(field.partition("=")[::2] for field in str(option).split(","))
        name, profile = fields.get("name", ""), fields.get("profile")
        options.append(f"{name}={profile}" if profile else name)
    return tuple(options)


def part(found: Mapping[str, Json], *keys: str) -> dict[str, Json]:
    """Return the mapping at that place of an answer; an empty one if there is none."""
    at: Json = dict(found)
    for key in keys:
        at = at.get(key) if isinstance(at, dict) else None
    return at if isinstance(at, dict) else {}


def _capabilities(settings: Mapping[str, Json]) -> tuple[str, ...]:
    if settings.get("Privileged") is True:
        return ("ALL",)
    dropped = {str(name).upper().removeprefix("CAP_") for name in _list(settings.get("CapDrop"))}
    given = sorted(str(name).upper().removeprefix("CAP_") for name in _list(settings.get("CapAdd")))
    # Podman lists ALL one by one.
    return tuple(given if "ALL" in dropped or dropped >= _DEFAULT else ["DEFAULT", *given])


def _security(found: Mapping[str, Json], settings: Mapping[str, Json], engine: tuple[str, ...] | None) -> Iterator[str]:
    own = [str(option).replace(":", "=", 1) for option in _list(settings.get("SecurityOpt"))]
    yield from own
    profile = _text(found.get("AppArmorProfile"))
    if profile and not any(option.startswith("apparmor=") for option in own):
        yield f"apparmor={profile}"
    for option in engine or ():
        # A container that names no filter of system calls has the engine's. It always names its AppArmor profile.
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
    """Name the hidden files. A stranger chose the names, so a record keeps a limited number."""
    mounts = [_hidden_by(mount) for mount in _list(found.get("Mounts")) if isinstance(mount, dict)]
    paths = sorted(path for path in mounts if path is not None)
    kept = [path if len(path) <= LONGEST_HIDDEN else f"{path[:LONGEST_HIDDEN]}..." for path in paths[:MOST_HIDDEN]]
    return (*kept, *([f"{len(paths) - MOST_HIDDEN} more"] if len(paths) > MOST_HIDDEN else []))


def _hidden_by(mount: Mapping[str, Json]) -> str | None:
    """Return the path in the workspace that a mount hides; None for one of the usual mounts."""
    inside = f"{WORKSPACE}/"
    where = str(mount.get("Destination"))
    return where.removeprefix(inside) if where.startswith(inside) else None


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Json) -> int | None:
    # To the engine 0 means unlimited. A number out of bounds is not a limit either.
    return number_or_none(value, 2**63 - 1) or None
