"""The settings of a service's containers as the engine's API takes them."""

from __future__ import annotations

import hashlib
import io
import re
import shlex
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pccpipe.docker_api.settings import LOG_CONFIG, NO_NAMES, PODMAN_LOG, SHELL, SYSTEM_PATH, TORN
from pccpipe.service import SECRETS, ServiceCommand, ServiceOwner
from pccpipe.values import Json

SERVICE_LABEL, OWNER_LABEL, STATE_LABEL = "pccpipe.service", "pccpipe.owner", "pccpipe.state"
"""The name of a service, the path of its owner, and the run's folder: another project's run may have the same id."""
FORWARD = "/pccpipe-forward"
"""The program in a forwarder that passes connections on."""
_NOBODY = "65534:65534"
_END = "# pccpipe: these are all secrets"
# Reads the secrets from stdin, then becomes the image's own entrypoint. Constant, because `docker inspect` shows it.
_BOOT = (
    f"""p=$(PATH={SYSTEM_PATH}${{PATH:+:$PATH}}; cat) &&"""
    f""" case $p in *'{_END}') eval "$p";; *) exit {TORN};; esac; unset p; exec "$@" </dev/null"""
)


def service_labels(run_id: str, state: str, owner: ServiceOwner | None = None) -> dict[str, str]:
    """Return the labels by which a run finds its services; with an owner, only that owner's."""
    labels = {"pccpipe.run": run_id, STATE_LABEL: state}
    return labels | ({OWNER_LABEL: owner.path} if owner else {})


def thing_name(run_id: str, state: str, owner: ServiceOwner, name: str) -> str:
    """Return the name of a container or network of an owner: no two runs, legs or attempts share one."""
    key = f"{run_id}\0{state}\0{owner.path}\0{owner.serial}\0{name}"
    digest = hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()[:16]
    return f"pcc-service-{digest}-{re.sub(r'[^A-Za-z0-9_.]+', '-', name)[:40]}"


def service_body(
    service: ServiceCommand,
    network: str,
    labels: Mapping[str, str],
    limit: float,
    own: tuple[Sequence[str], Sequence[str]],
    *,
    podman: bool = False,
) -> dict[str, Json]:
    """Return the body of the create call: the image's own user, entrypoint and command.

    Args:
        network: the name of its owner's network.
        own: the entrypoint and the command of the image.
    """
    capabilities: list[Json] = [*service.capabilities]
    env: list[Json] = [f"{name}={value}" for name, value in service.env.items()]
    body: dict[str, Json] = {
        "Image": service.image,
        "Env": env,
        "Labels": {**labels, SERVICE_LABEL: service.name, "pccpipe.deadline": str(int(time.time() + limit))},
        "HostConfig": {
            "CapDrop": ["ALL"],
            "CapAdd": capabilities,
            **_limits(service.memory, service.cpus, service.pids),
            **({"ShmSize": service.shm_size} if service.shm_size else {}),
            **({"Tmpfs": {SECRETS: "rw,noexec,nosuid,nodev,size=1m,mode=1777"}} if service.secrets else {}),
            **({"Dns": NO_NAMES} if service.network == "none" else {}),
            **_common(network, podman=podman),
        },
        "NetworkingConfig": {"EndpointsConfig": {network: {"Aliases": [service.name]}}},
    }
    if service.command is not None:
        body["Cmd"] = [*service.command]
    if service.secrets:
        entrypoint, command = own
        words = [*entrypoint, *(command if service.command is None else service.command)]
        boot: list[Json] = [SHELL, "-c", _BOOT, SHELL, *words]
        # The engine gives an entrypoint the image's own command only if it is the image's own entrypoint.
        body |= {"Entrypoint": boot, "Cmd": [], "OpenStdin": True, "StdinOnce": True}
    return body


def forwarder_body(
    service: ServiceCommand,
    address: str,
    network: str,
    labels: Mapping[str, str],
    limit: float,
    *,
    podman: bool = False,
) -> dict[str, Json]:
    """Return the body of the create call of a service's forwarder.

    It has the service's image, as the engine has that for certain, and runs nothing of it.

    Args:
        address: the service's, in its own network.
        network: the name of the network with published ports.
    """
    return {
        "Image": service.image,
        "Entrypoint": [FORWARD],
        "Cmd": [f"{port}:{address}:{port}" for port in service.ports],
        "User": _NOBODY,
        "WorkingDir": "/",
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": {**labels, SERVICE_LABEL: service.name, "pccpipe.deadline": str(int(time.time() + limit))},
        "ExposedPorts": {f"{port}/tcp": {} for port in service.ports},
        "HostConfig": {
            "CapDrop": ["ALL"],
            # The kernel lets an unprivileged user listen at any port of a network of its own.
            "Sysctls": {"net.ipv4.ip_unprivileged_port_start": "0"},
            "PortBindings": {f"{port}/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}] for port in service.ports},
            **_limits(64 << 20, None, 1024),
            **_common(network, podman=podman),
        },
        "NetworkingConfig": {"EndpointsConfig": {network: {}}},
    }


def forward_archive(architecture: str) -> bytes | None:
    """Return an archive with the program for an engine's architecture; None if there is none."""
    known = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
    if architecture not in known:
        return None
    program = (Path(__file__).resolve().parent / "forward" / f"forward-{known[architecture]}").read_bytes()
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        entry = tarfile.TarInfo(FORWARD.removeprefix("/"))
        entry.size, entry.mode = len(program), 0o755
        archive.addfile(entry, io.BytesIO(program))
    return made.getvalue()


def secrets_program(secrets: Mapping[str, str]) -> bytes:
    """Return the shell program that writes the secrets into the service's memory."""
    lines = ["umask 022"]
    for name, value in secrets.items():
        file = shlex.quote(f"{SECRETS}/{name}")
        # The entrypoint's own user reads it too.
        lines += [f"printf %s {shlex.quote(value)} >{file} && chmod 0444 {file} || exit {TORN}"]
    return "\n".join([*lines, _END]).encode(errors="surrogateescape")


def _limits(memory: int | None, cpus: float | None, pids: int | None) -> dict[str, Json]:
    return {
        "Memory": memory or 0,
        "MemorySwap": memory or 0,
        "NanoCpus": int((cpus or 0) * 1e9),
        "PidsLimit": pids,
    }


def _common(network: str, *, podman: bool) -> dict[str, Json]:
    return {
        "SecurityOpt": ["no-new-privileges"],
        "IpcMode": "private",
        "NetworkMode": network,
        "LogConfig": PODMAN_LOG if podman else LOG_CONFIG,
        "RestartPolicy": {"Name": "no"},
        "AutoRemove": False,
    }
