"""A container's settings as the engine's API takes them: hardened, and without a word of the command or its secrets."""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Sequence

from msgspec import Struct

from pccpipe.docker_api.hidden import Hidden
from pccpipe.target import Command, ContainerSettings
from pccpipe.values import Json

HOME = "/pcc/home"
TEMPORARY = ("/tmp", "/var/tmp")
IN, OUT, WORKSPACE = "/pcc/in", "/pcc/out", "/workspace"
PROXY = "/pcc/proxy"
"""The folder with the proxy's socket, if the command needs it."""
END_OF_PROLOGUE = "# pccpipe: this is all of it"

SHELL = "/bin/sh"
TORN, NO_SHELL = 121, 122
"""Exit codes before the command begins: the prologue did not come whole; the image lacks the step's shell."""
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
"""Where pccpipe's own lines find programs, whatever PATH an image or a step has."""
# Reads what is to be exported from stdin, and does nothing unless it came whole: a connection that ends half way
# through must not look like a command that ran. Constant, because `docker inspect` shows it.
BOOT = (
    f"""p=$(PATH={SYSTEM_PATH}${{PATH:+:$PATH}}; cat) &&"""
    f""" case $p in *'{END_OF_PROLOGUE}') eval "$p";; *) exit {TORN};; esac"""
)
BEGUN = "pccpipe: the command begins"
"""The first line of a container's output. Without it, the command never began: no code but the image's has run."""
MARK_LABEL = "pccpipe.mark"
"""On a container that says so."""
LIMIT_LABEL = "pccpipe.limit"
"""Seconds after which the container ends by itself."""

LOG_CONFIG: Json = {"Type": "local", "Config": {"max-size": "1g", "max-file": "2", "compress": "false"}}
"""The engine's copy of the output, for going on after a dropped connection; it goes with the container."""
PODMAN_LOG: Json = {"Type": "json-file", "Config": {"max-size": "1g"}}
"""The same, in Podman's words."""


class Paths(Struct, frozen=True):
    """On the engine's machine."""

    workspace: str
    files: str
    out: str
    proxy: str
    cover: str
    """The folder of what lies over hidden files."""


def container_name(run_id: str, command: Command) -> str:
    """The name of a command's container: a hash of the whole run id and the step's path, and the step for people.

    Two runs whose ids begin alike do not meet on one engine, and any matrix value makes a legal name.
    """
    digest = hashlib.sha256(f"{run_id}\0{command.id}".encode(errors="surrogatepass")).hexdigest()[:16]
    step = re.sub(r"[^A-Za-z0-9_.]+", "-", command.step).strip("-")[:40]
    return f"pcc-run-{digest}-{step}-{command.serial}"


def create_body(
    command: Command,
    run_id: str,
    user: tuple[int, int],
    paths: Paths,
    hidden: Sequence[Hidden] = (),
    *,
    podman: bool = False,
) -> dict[str, Json]:
    """The body of the API's create call.

    Args:
        hidden: what of the workspace it is not to see.
        podman: whether the engine is that.
    """
    settings = command.container
    assert settings is not None
    uid, gid = (0, 0) if settings.root else user
    return {
        "Image": settings.image,
        "Entrypoint": [SHELL, "-c", BOOT],
        "Cmd": [],
        "User": f"{uid}:{gid}",
        "WorkingDir": WORKSPACE,
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": False,
        "Labels": {
            "pccpipe.run": run_id,
            "pccpipe.step": command.step,
            "pccpipe.command": command.id,
            "pccpipe.deadline": str(int(time.time() + command.limit)),
            LIMIT_LABEL: str(math.ceil(command.limit)),
            MARK_LABEL: "1",
        },
        "HostConfig": {
            "Init": settings.init,
            "CapDrop": ["ALL"],
            "CapAdd": list(settings.capabilities),
            "SecurityOpt": _security(settings),
            "ReadonlyRootfs": settings.read_only_root,
            "Runtime": settings.runtime or "",
            "IpcMode": "private",
            "NetworkMode": settings.network,
            "Memory": settings.memory or 0,
            # As much as memory: no swap, so that the limit is one.
            "MemorySwap": settings.memory or 0,
            "NanoCpus": int((settings.cpus or 0) * 1e9),
            "PidsLimit": settings.pids,
            "Mounts": [
                _mount(paths.workspace, WORKSPACE, read_only=settings.read_only_workspace),
                *(_mount(f"{paths.cover}/{each.cover}", f"{WORKSPACE}/{each.path}", read_only=True) for each in hidden),
                _mount(paths.files, IN, read_only=True),
                _mount(paths.out, OUT, read_only=False),
                *([_mount(paths.proxy, PROXY, read_only=True)] if command.is_proxied else []),
            ],
            # Podman gives a folder in memory to nobody but root; in there is no other user than the command's.
            "Tmpfs": _tmpfs(settings, "mode=1777" if podman else f"mode=0700,uid={uid},gid={gid}"),
            "LogConfig": PODMAN_LOG if podman else LOG_CONFIG,
            "RestartPolicy": {"Name": "no"},
            "AutoRemove": False,
        },
    }


def _security(settings: ContainerSettings) -> list[Json]:
    options = {
        "no-new-privileges": not settings.new_privileges,
        "seccomp=unconfined": not settings.seccomp,
        "apparmor=unconfined": not settings.apparmor,
    }
    return [option for option, is_set in options.items() if is_set]


def _tmpfs(settings: ContainerSettings, of_home: str) -> dict[str, Json]:
    common = f"rw,exec,nosuid,nodev,size={settings.home_size}"
    folders: dict[str, Json] = {HOME: f"{common},{of_home}"}
    if settings.read_only_root:
        folders |= dict.fromkeys(TEMPORARY, f"{common},mode=1777")
    return folders


def _mount(source: str, target: str, *, read_only: bool) -> Json:
    return {"Type": "bind", "Source": source, "Target": target, "ReadOnly": read_only}
