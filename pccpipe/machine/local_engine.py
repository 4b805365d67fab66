"""Finds this machine's Docker Engine as Docker's own tools do; then at the places where others have its socket."""

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
"""Bytes of a file of Docker's settings that are read."""
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://")
_ONLY_SOCKETS = (
    "set DOCKER_HOST=unix://PATH to an engine on this machine (`docker context ls` lists them), or give the project "
    "`isolation_mode: vm` with that machine as its VM"
)


class LocalEngine(Struct, frozen=True):
    """Where this machine's engine has its socket."""

    socket: str
    named_by: str = ""
    """The setting that names it, in words; empty for one of the known places."""
    missing_at: tuple[str, ...] = ()
    """The places that were tried, if none has a socket."""

    @property
    def words(self) -> str:
        """Tell how the socket was found, or where it was looked for."""
        if self.named_by:
            return f"{self.named_by} names it"
        return f"looked for one at {', '.join(self.missing_at)}" if self.missing_at else ""


def find_local_engine(environ: Mapping[str, str] = os.environ, home: Path | None = None) -> LocalEngine:
    """Find it by DOCKER_HOST, by Docker's context, at the default place, at the known places, in this order.

    Raises UsageError for an address that is no socket of this machine, and for a context that does not exist.
    """
    home = home or Path(os.path.expanduser("~"))  # noqa: PTH111 - that raises nothing
    named_by, address = _named(environ, home)
    if named_by:
        return LocalEngine(_socket_of(named_by, address), named_by)
    places = known_places(environ, home)
    for place in places:
        if _is_socket(place):
            return LocalEngine(place)
    # Docker Desktop leaves a dangling link; anything else at the default place is for the call to complain of.
    return LocalEngine(DEFAULT_SOCKET, missing_at=() if os.path.exists(DEFAULT_SOCKET) else places)  # noqa: PTH110 - that raises nothing


def is_engine_at_hand(environ: Mapping[str, str] = os.environ, home: Path | None = None) -> bool:
    """Whether a command here may use an engine: by any socket that is open to it, or by an address that is set."""
    home = home or Path(os.path.expanduser("~"))  # noqa: PTH111 - that raises nothing
    try:
        named = find_local_engine(environ, home).socket
    except UsageError:
        # It leads to a machine elsewhere. Not asked: the answer may take long, and must not claim too much isolation.
        return True
    return any(os.access(place, os.W_OK) for place in (named, *known_places(environ, home)))


def known_places(environ: Mapping[str, str], home: Path) -> tuple[str, ...]:
    """Give the paths at which programs that bring an engine have its socket, the most usual first."""
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
    """Whether a socket is there, as far as this user may see."""
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)  # noqa: PTH116
    except OSError:
        return False


def _named(environ: Mapping[str, str], home: Path) -> tuple[str, str]:
    """Give the setting that names the engine, and the address that it gives; both empty without one."""
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
            f"{named_by} does not exist, or says no address",
            "`docker context ls` lists those that exist; `docker context use NAME` takes one",
        )
    return named_by, address


def _socket_of(named_by: str, address: str) -> str:
    """Give the path in an address `unix://PATH`. Raises UsageError for every other one."""
    scheme, _, rest = address.partition("://")
    if scheme == "unix":
        # As Docker has it: without a path, the default; a relative one from the current folder.
        return str(Path(rest).absolute()) if rest else DEFAULT_SOCKET
    found = _SCHEME.match(address)
    kinds = {"ssh": "an engine reached by ssh", "npipe": "a pipe of Windows"}
    kind = kinds.get(found[1] if found else "", "an engine reached by TCP")
    shown = cut(re.sub(r"(://[^:/@]*):[^/@]*@", r"\1:...@", address), 200)
    raise UsageError(f"{named_by} is {shown!r}: {kind}. pccpipe uses an engine by its Unix socket only", _ONLY_SOCKETS)


def _read(path: Path) -> object:
    """Give what a file of Docker's settings says; None where that is nothing: Docker goes on without it as well."""
    try:
        with path.open("rb") as file:
            return json.loads(file.read(_LONGEST))
    except (OSError, ValueError, RecursionError):
        return None


def _text(value: object, *keys: str) -> str:
    """Give the text at the end of a path of keys, or nothing."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) else ""
