"""Checks the machine's Docker Engine, and the image of agents."""

from __future__ import annotations

import contextlib
import shlex
import threading

from pccpipe.checkup.check import Check, Finding, Fix, FixPlace, ok, skipped, warning, wrong
from pccpipe.checkup.context import CONTEXT, DOCKERFILE, IMAGE, CheckContext
from pccpipe.docker_api.engine import DockerEngine
from pccpipe.docker_api.image import CONTENT_LABEL, content_of
from pccpipe.docker_api.problems import ApiCall
from pccpipe.errors import Unavailable
from pccpipe.gc.changed import other_image
from pccpipe.machine.haltable import HaltableMachine
from pccpipe.machine.provisioned import Provisioned, read_provisioned, write_provisioned
from pccpipe.outcome import Reason
from pccpipe.paste import operands

GROUP = "docker"
OF_LOGIN = "/run/user/"
"""The folder with the socket of a login's own engine."""
BUILD_LIMIT = 1800.0
"""Seconds: the build installs packages and Codex."""


def installed(context: CheckContext) -> Finding:
    """Check that an engine is installed."""
    refusal = context.engine_refusal
    if refusal is None or refusal.reason is not Reason.ENGINE_MISSING:
        return ok(f"at {context.engine.socket}")
    if context.vm is None and context.machine.facts.engine_error:
        return wrong(f"{refusal.words}; {refusal.hint}")
    if context.engine.socket.startswith(OF_LOGIN):
        words = f"{refusal.words}: the login's DOCKER_HOST or vm.engine_socket names that socket"
        return wrong(words, Fix(_service(context, "start"), is_safe=True))
    found = context.words_of("command -v dockerd")
    if found:
        return ok(found)
    words = f"there is no Docker Engine ({refusal.words})"
    if context.vm:
        return wrong(words, context.provision_fix)
    if context.machine.facts.system == "Darwin":
        return wrong(f"{words}: start Docker Desktop, OrbStack, colima or `podman machine`")
    install = "apk add docker" if context.has_apk else "apt-get install -y docker.io"
    return wrong(words, Fix(f"{context.sudo}{install}"))


def group(context: CheckContext) -> Finding:
    """Check that the user may use the engine."""
    user = context.machine.facts.user
    if context.engine_refusal is None or context.machine.facts.uid == 0:
        return ok(f"{user} may use the engine")
    mine = context.words_of("id -Gn").split()
    if GROUP in mine:
        if context.engine_refusal.reason is Reason.ENGINE_PERMISSION_DENIED:
            owner = context.words_of(f"ls -l {shlex.quote(context.engine.socket)}")
            words = f"{user} is in group {GROUP}, but may not use {context.engine.socket} ({owner})"
            return wrong(words, Fix(f"{context.sudo}chgrp {GROUP} {shlex.quote(context.engine.socket)}", is_safe=True))
        return ok(f"{user} is in group {GROUP}")
    # `id USER` reads the user database; `id` shows the groups that this login began with.
    if GROUP in context.words_of(f"id -Gn {shlex.quote(user)}").split():
        words = f"{user} is in group {GROUP}, but this login began before that"
        if context.vm:
            return wrong(words, Fix(context.pccpipe("doctor"), FixPlace.HERE, is_safe=True, do=_log_in_again))
        return wrong(f"{words}; log out and in again", Fix(f"newgrp {GROUP}"))
    words = f"{user} is not in group {GROUP} and may not use the engine"
    if context.words_of(f"getent group {GROUP}"):
        return wrong(words, Fix(f"{context.sudo}usermod -aG {GROUP} {operands(user)}", is_safe=True))
    return wrong(f"{words}; there is no such group", context.provision_fix)


def running(context: CheckContext) -> Finding:
    """Check that the engine answers."""
    refusal = context.engine_refusal
    if refusal is None:
        return ok(f"version {_version(context)}")
    match refusal.reason:
        case Reason.ENGINE_PERMISSION_DENIED:
            return skipped("only a user of the engine can check it")
        case _ if context.machine.facts.system == "Darwin":
            return wrong(f"{refusal.words}: restart the program that provides the engine")
        case Reason.ENGINE_MISSING | Reason.ENGINE_STOPPED:
            verb = "enable --now" if context.has_systemd else "start"
            return wrong(f"it does not run ({refusal.words})", Fix(_service(context, verb), is_safe=True))
        case _:
            # A restart may end the containers of a run.
            return wrong(refusal.words, Fix(_service(context, "restart")))


def _service(context: CheckContext, verb: str) -> str:
    """Return the command that starts or restarts the engine, which may be the login's own service."""
    socket = context.engine.socket
    podman = socket.endswith("/podman.sock")
    if socket.startswith(OF_LOGIN):
        return f"systemctl --user {verb} {'podman.socket' if podman else 'docker'}"
    return context.service(verb, "podman.socket" if podman else "docker")


def image(context: CheckContext) -> Finding:
    """Check that the agents' image exists, and was built from the current Dockerfile."""
    labels = context.engine.image_labels(IMAGE)
    fix = _build(context)
    if labels is None:
        return wrong(f"there is no image {IMAGE}", fix)
    known = read_provisioned(context.machine, context.root) if context.vm else None
    if words := other_image(known, IMAGE, context.engine.image_id(IMAGE)):
        return wrong(words, fix)
    content = labels.get(CONTENT_LABEL)
    if content is None:
        return warning(f"{IMAGE} was not built by `pccpipe provision`; fine if you know it", fix)
    if content != content_of(CONTEXT):
        return wrong(f"{IMAGE} was built from another Dockerfile than this pccpipe's {DOCKERFILE.name}", fix)
    by = "" if known is None or IMAGE in known.images else "; no record says that provision built it"
    return ok(f"{IMAGE}, built from {DOCKERFILE.name} as it is now{by}")


def _version(context: CheckContext) -> str:
    return str(context.engine.ask(ApiCall.OTHER, lambda client: client.version()).get("Version", "unknown"))


def _build(context: CheckContext) -> Fix:
    if context.vm:
        return Fix(context.pccpipe("provision"), FixPlace.HERE, is_safe=True, do=_build_image)
    label = f"{CONTENT_LABEL}={content_of(CONTEXT)}"
    command = f"docker build -t {IMAGE} --label {label} -f {shlex.quote(str(DOCKERFILE))} {shlex.quote(str(CONTEXT))}"
    return Fix(command, is_safe=True, do=_build_image)


def _build_image(context: CheckContext) -> str:
    before = _image_id(context)
    over = HaltableMachine(context.machine)
    limit = threading.Timer(BUILD_LIMIT, over.halt)
    limit.start()
    try:
        labels = {CONTENT_LABEL: content_of(CONTEXT)}
        DockerEngine(over, context.engine.socket).build(IMAGE, CONTEXT, DOCKERFILE, {}, lambda _: None, labels)
    finally:
        limit.cancel()
    if before and before != _image_id(context):
        # Replaced images would fill the disk, one pccpipe after the other; an image that a container uses stays.
        with contextlib.suppress(Unavailable):
            context.engine.ask(ApiCall.OTHER, lambda client: client.remove_image(before))
    if context.vm:
        _remember(context)
    return f"built {IMAGE} from {DOCKERFILE}"


def _remember(context: CheckContext) -> None:
    """Record the id of the built image."""
    known = read_provisioned(context.machine, context.root) or Provisioned()
    images = {**known.images, IMAGE: _image_id(context)}
    write_provisioned(context.machine, context.root, Provisioned(images, known.startup_files))


def _image_id(context: CheckContext) -> str:
    with contextlib.suppress(Unavailable):
        return context.engine.image_id(IMAGE) or ""
    return ""


def _log_in_again(context: CheckContext) -> str:
    context.forget()
    return "logged in again"


CHECKS = [
    Check("engine", installed, limit=40),
    Check("engine-group", group, ("engine",), limit=40),
    Check("engine-running", running, ("engine-group",), limit=40),
    Check("image", image, ("engine-running",)),
]
