"""Finds this machine's Docker Engine as Docker's own tools do, then at the socket paths of other programs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from pccpipe.errors import UsageError
from pccpipe.values import cut

DEFAULT_SOCKET = "/var/run/docker.sock"
_LONGEST = 1024 * 1024
"""The most bytes that it reads of a file of Docker's settings."""
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://")
_ONLY_SOCKETS = (
    "set DOCKER_HOST=unix://PATH to an engine on this machine (`docker context ls` lists them), or give the project "
    "`isolation_mode: vm` with that machine as its VM"
)


class LocalEngine(Struct, frozen=True):
    """The socket of this machine's engine, and how it was found."""

    socket: str
    named_by: str = ""
    """The setting that names it, in words; empty for one of the known places."""
    missing_at: tuple[str, ...] = ()
    """The paths that were tried, if none has a socket."""

    @property
    def words(self) -> str:
        """Say how the socket was found, or where it was searched."""
        if self.named_by:
            return f"{self.named_by} names it"
        return f"searched at {', '.join(self.missing_at)}" if self.missing_at else ""


def find_local_engine(environ: Mapping[str, str] = os.environ, home: Path | None = None) -> LocalEngine:
    """Find it by DOCKER_HOST, by Docker's context, at the default place, at the known places, in this order.

    Raises UsageError for an address that does not name a socket of this machine, or a context that does not exist.
    """
    home = home or Path(os.path.expanduser("~"))  # noqa: PTH111 - that raises nothing
    named_by, address = _named(environ, home)
    if named_by:
        return LocalEngine(_socket_of(named_by, address), named_by)
    places = known_places(environ, home)
    for place in places:
        if _is_socket(place):
            return LocalEngine(place)
    # Docker Desktop leaves a dangling link. The call reports anything else at the default place.
    return LocalEngine(DEFAULT_SOCKET, missing_at=() if os.path.exists(DEFAULT_SOCKET) else places)  # noqa: PTH110 - that raises nothing


def is_engine_at_hand(environ: Mapping[str, str] = os.environ, home: Path | None = None) -> bool:
    """Return whether a command here may use an engine, by an open socket or by an address in the settings."""
    home = home or Path(os.path.expanduser("~"))  # noqa: PTH111 - that raises nothing
    try:
        named = find_local_engine(environ, home).socket
    except UsageError:
        # The address is on another machine. It is not asked: the answer may take long, and True claims less isolation.
        return True
    return any(os.access(place, os.W_OK) for place in (named, *known_places(environ, home)))


def known_places(environ: Mapping[str, str], home: Path) -> tuple[str, ...]:
    """Return the socket paths of programs that bring an engine, the most usual first."""
    runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    colima = Path(environ["COLIMA_HOME"]) if environ.get("COLIMA_HOME") else home / ".colima"
    temporary = environ.get("TMPDIR") or "/tmp"
    return (
        DEFAULT_SOCKET,
        f"{runtime}/docker.sock",  # rootless Docker
        f"{home}/.docker/run/docker.sock",  # Docker Desktop on a Mac
        f"{home}/.docker/desktop/docker.sock",  # on Linux
        f"{colima}/default/docker.sock",
        f"{home}/.config/colima/default/docker.sock",
        f"{home}/.orbstack/run/docker.sock",
        f"{home}/.rd/docker.sock",  # Rancher Desktop
        f"{home}/.lima/docker/sock/docker.sock",
        "/run/podman/podman.sock",
        f"{runtime}/podman/podman.sock",
        f"{home}/.local/share/containers/podman/machine/podman.sock",
        f"{Path(temporary) / 'podman/podman-machine-default-api.sock'}",
    )


def _is_socket(path: str) -> bool:
    """Return whether this user can see a socket at the path."""
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)  # noqa: PTH116
    except OSError:
        return False


def _named(environ: Mapping[str, str], home: Path) -> tuple[str, str]:
    """Return the setting that names the engine, and the address in it; both are empty without one."""
    if host := environ.get("DOCKER_HOST", ""):
        return "DOCKER_HOST", host
    config = Path(environ["DOCKER_CONFIG"]) if environ.get("DOCKER_CONFIG") else home / ".docker"
    context, by = environ.get("DOCKER_CONTEXT", ""), "DOCKER_CONTEXT"
    if not context:
        context, by = _text(_read(config / "config.json"), "currentContext"), f"currentContext in {config}/config.json"
    if not context or context == "default":
        return "", ""
    meta = config / "contexts" / "meta" / hashlib.sha256(context.encode(errors="surrogateescape")).hexdigest()
    address = _text(_read(meta / "meta.json"), "Endpoints", "docker", "Host")
    named_by = f"the context {cut(context, 60)} of Docker ({by})"
    if not address:
        raise UsageError(
            f"{named_by} does not exist, or has no address",
            "`docker context ls` lists the contexts; `docker context use NAME` selects one",
        )
    return named_by, address


def _socket_of(named_by: str, address: str) -> str:
    """Return the path in an address `unix://PATH`. Raises UsageError for any other address."""
    scheme, _, rest = address.partition("://")
    if scheme == "unix":
        # As in Docker: without a path, the default; a relative path starts at the current folder.
        return str(Path(rest).absolute()) if rest else DEFAULT_SOCKET
    found = _SCHEME.match(address)
    kinds = {"ssh": "an engine reached by ssh", "npipe": "a pipe of Windows"}
    kind = kinds.get(found[1] if found else "", "an engine reached by TCP")
    shown = cut(re.sub(r"(://[^:/@]*):[^/@]*@", r"\1:...@", address), 200)
    raise UsageError(
        f"{named_by} is {shown!r}: {kind}. pccpipe uses an engine only through its Unix socket", _ONLY_SOCKETS
    )


def _read(path: Path) -> object:
    """Read a file of Docker's settings; return None if that fails: Docker ignores such a file, too."""
    try:
        with path.open("rb") as file:
            return json.loads(file.read(_LONGEST))
    except (OSError, ValueError, RecursionError):
        return None


def _text(value: object, *keys: str) -> str:
    """Return the text at the end of a path of keys, or an empty one."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) else ""
