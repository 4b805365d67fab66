"""Check, prepare and record the start of a command: its place, its workspace, its isolation."""

from __future__ import annotations

from msgspec.structs import replace

from pccpipe.errors import ActionError, Unavailable, WorkspaceGone
from pccpipe.executor.attestation import is_unattested, runs_as_login, unattested_gates
from pccpipe.executor.conversation import SESSION
from pccpipe.executor.exposure import level_of
from pccpipe.executor.places import refusal
from pccpipe.executor.run_step import RunStep
from pccpipe.executor.shortfall import shortfalls
from pccpipe.outcome import Place, Reason
from pccpipe.record.events import CommandStarted, MayHaveBegun, Warned, WorkspaceCopied
from pccpipe.record.logs import CommandLog
from pccpipe.target import Command, Isolation, Running
from pccpipe.workspace.base import COPIED

LAST_KNOWN = "the VM's copy of the workspace is unreachable: the step uses the local copy, as last known"
CHOOSE_ENGINE = "`isolation_mode: container` in the project file runs it on this machine's engine, `vm` on the VM's"
RUN_AS = "give the VM's workspace code an account: `vm: {run_as: ...}`"

ALONE = (
    "the project's `run_as` keeps the two apart: put the background command and the steps `on: vm` that use it into a "
    "group of their own"
)


def check_place(step: RunStep, place: Place) -> None:
    """Raise `Unavailable` if the step may not begin at `place`, whether or not the place is available."""
    context, body = step.context, step.body
    if refused := refusal(context.project.isolation_mode, body):
        raise Unavailable(Reason.ENGINE_MISSING, refused, CHOOSE_ENGINE)
    if place is not step.first[0] and (unavailable := step.refuse_fallback(place)):
        raise unavailable
    if place is Place.CONTAINER and step.has_account and (running := _beside_on_vm(step)):
        raise ActionError(f"{running} runs on the VM in the background: no container step runs beside it there", ALONE)
    if not body.isolation_required:
        return
    read = (*step.forged_reads, *step.forged_exports(place))
    forged = list(dict.fromkeys((*unattested_gates(step.position), *read)))
    if body.result and is_unattested(context, body, place):
        forged.append(step.spec.id)
    if forged:
        words = f"`isolation: required`, and a command on the VM could forge the result of {', '.join(forged)}"
        raise Unavailable(Reason.UNATTESTED, words, RUN_AS)


def _beside_on_vm(step: RunStep) -> str:
    """Name a background command that the step would wait for in vain: it ends after the step."""
    return next((path for path in step.position.beside if path in step.context.backgrounds.at(Place.VM)), "")


def prepare_workspace(step: RunStep, place: Place) -> None:
    """Bring the newest copy of the workspace to `place`. Raises `Unavailable`, WorkspaceGone."""
    context = step.context
    if context.targets.fenced:
        if context.workspace.ensure_local(step.halt):
            context.journal.append(Warned(LAST_KNOWN, step.path))
        return
    last_known = step.is_consented and place is not step.first[0]
    try:
        sent = context.workspace.prepare(context.side_of(place), step.halt, or_last_known=last_known)
    except WorkspaceGone:
        raise  # an earlier step did that, so it says nothing about the place
    except ActionError as error:
        raise Unavailable(Reason.WORKSPACE_REFUSED, error.message, error.hint) from error
    if sent is not None and sent.method == COPIED:
        folder = context.workspace.folder_on(context.side_of(place))
        context.journal.append(WorkspaceCopied(step.path, place, folder, sent.seconds))
    if sent is not None and sent.stale:
        context.journal.append(Warned(LAST_KNOWN, step.path))
    if sent is not None and sent.refused:
        words = f"some files of the VM's copy of the workspace were refused: {'; '.join(sent.refused)}"
        context.journal.append(Warned(words, step.path))


def record_may_begin(step: RunStep, number: int, place: Place) -> bool:
    """Record, before it begins, that an agent's code may run at `place`; return whether that holds of the step."""
    if place is not Place.CONTAINER and not step.is_agent:
        return False
    exposure = step.context.exposure
    consented = place is not step.first[0] and exposure.forbids(level_of(place, agent=step.is_agent))
    event = MayHaveBegun(step.path, number, place, consented)
    exposure.apply(event)
    step.context.journal.append(event)
    return True


def remember_vm(step: RunStep, place: Place) -> None:
    """Record for later runs that code of an exposed run runs on the VM as the login. Raises PccpipeError."""
    if step.context.exposure.least is not None and runs_as_login(step.context, step.body, place):
        step.context.targets.remember_vm()


def record_start(step: RunStep, number: int, command: Command, running: Running, log: CommandLog) -> None:
    """Record that a command has begun, with the isolation that it has, and warn if that is less than requested."""
    context, isolation = step.context, running.isolation
    asked = command.container
    if asked and command.network:
        asked = replace(asked, network=command.network)  # that of the services beside it
    as_login = runs_as_login(context, step.body, isolation.place)
    event = CommandStarted(
        step.path,
        number,
        command.id,
        isolation,
        log.stdout_name,
        log.stderr_name,
        running.token,
        asked,
        as_login,
        step.body.agent.agent.name if step.body.agent else "",
        command.env[SESSION] if command.keeps else "",
    )
    context.journal.append(event)
    context.exposure.apply(event)
    if as_login:
        context.replay.login_began = True
    context.used.add(isolation.place)
    if asked and isolation.image:
        if lacking := "; ".join(shortfalls(asked, isolation)):
            context.journal.append(Warned(f"its container has less isolation than requested: {lacking}", step.path))
        _warn_changed_image(step, isolation)


def _warn_changed_image(step: RunStep, had: Isolation) -> None:
    """Warn, once a run for each image, if its name leads to another image than when `provision` ran."""
    warned = step.context.replay.changed_images
    if had.image and had.image_digest and had.image_provisioned and had.image not in warned:
        warned.add(had.image)
        before, now = (digest.removeprefix("sha256:")[:12] for digest in (had.image_provisioned, had.image_digest))
        words = f"image {had.image} changed since `pccpipe provision`: it was {before} and is {now}"
        step.context.journal.append(Warned(f"{words}; fix: pccpipe provision", step.path))
