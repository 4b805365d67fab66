"""A container's settings as the engine's API takes them: hardened, without the command's text or secrets."""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Sequence

from msgspec import Struct

from pccpipe.docker_api.hidden import Hidden
from pccpipe.record.fence import GIT
from pccpipe.target import Command, ContainerSettings
from pccpipe.values import Json

HOME = "/pcc/home"
TEMPORARY = ("/tmp", "/var/tmp")
IN, OUT, WORKSPACE = "/pcc/in", "/pcc/out", "/workspace"
PROXY = "/pcc/proxy"
"""The folder with the proxy's socket, in a container that needs it."""
END_OF_PROLOGUE = "# pccpipe: this is all of it"

SHELL = "/bin/sh"
TORN, NO_SHELL = 121, 122
"""Exit codes before the command begins: a part of the prologue is missing; the image lacks the step's shell."""
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
"""The PATH of pccpipe's own lines, whatever PATH an image or a step has."""
# Reads the prologue from stdin, and does nothing unless its last line arrived: a connection that breaks must not look
# like a command that ran. Constant, because `docker inspect` shows it.
BOOT = (
    f"""p=$(PATH={SYSTEM_PATH}${{PATH:+:$PATH}}; cat) &&"""
    f""" case $p in *'{END_OF_PROLOGUE}') eval "$p";; *) exit {TORN};; esac"""
)
BEGUN = "pccpipe: the command begins"
"""The first line of a container's output. Without it the command never began, and only the image's code has run."""
BEGUN_FILE = ".pcc-begun"
"""A file that a container leaves in its folder of results before its command begins.

An engine that is killed may forget what its containers have done since: that they started, or what they printed.
"""
MARK_LABEL = "pccpipe.mark"
"""The label of a container that prints this line."""
LIMIT_LABEL = "pccpipe.limit"
"""Seconds after which the container ends by itself."""

NO_NAMES: list[Json] = ["127.0.0.1"]
"""The name server of a container without a way out: none outside.

Docker before 25 passes on a container's questions even from an internal network.
"""
LOG_CONFIG: Json = {"Type": "local", "Config": {"max-size": "1g", "max-file": "2", "compress": "false"}}
"""The engine's copy of the output, to read on after a broken connection; it is removed with the container."""
PODMAN_LOG: Json = {"Type": "json-file", "Config": {"max-size": "1g"}}
"""The same for Podman."""


class Paths(Struct, frozen=True):
    """A command's folders on the engine's machine."""

    workspace: str
    files: str
    out: str
    proxy: str
    cover: str
    """The folder of the covers of hidden files."""


def container_name(run_id: str, command: Command) -> str:
    """Return the name of a command's container: a hash of the run id and the command's id, then the step for people.

    The names of two runs never clash on one engine, and any matrix value makes a legal name.
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
    has_git: bool = False,
    podman: bool = False,
) -> dict[str, Json]:
    """Return the body of the API's create call.

    Args:
        hidden: the files of the workspace to hide from it.
        has_git: the workspace has a git repository that no container may change: a later step's git would obey it.
        podman: whether the engine is Podman.
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
            "NetworkMode": command.network or settings.network,
            **({"Dns": NO_NAMES} if command.network and settings.network == "none" else {}),
            "Memory": settings.memory or 0,
            # The same as memory, so that the container cannot swap.
            "MemorySwap": settings.memory or 0,
            "NanoCpus": int((settings.cpus or 0) * 1e9),
            "PidsLimit": settings.pids,
            "Mounts": _mounts(command, paths, hidden, has_git=has_git),
            # Podman takes no uid here, so the folder is open to all; the container has only the command's user.
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


def _mounts(command: Command, paths: Paths, hidden: Sequence[Hidden], *, has_git: bool) -> list[Json]:
    assert command.container is not None
    return [
        _mount(paths.workspace, WORKSPACE, read_only=command.container.read_only_workspace),
        *([_mount(f"{paths.workspace}/{GIT}", f"{WORKSPACE}/{GIT}", read_only=True)] if has_git else []),
        *(_mount(f"{paths.cover}/{each.cover}", f"{WORKSPACE}/{each.path}", read_only=True) for each in hidden),
        _mount(paths.files, IN, read_only=True),
        _mount(paths.out, OUT, read_only=False),
        *([_mount(paths.proxy, PROXY, read_only=True)] if command.is_proxied else []),
    ]


def _mount(source: str, target: str, *, read_only: bool) -> Json:
    return {"Type": "bind", "Source": source, "Target": target, "ReadOnly": read_only}
