"""Says what isolation each command really had."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from pccpipe.executor.shortfall import shortfalls
from pccpipe.outcome import Place
from pccpipe.record.state import RunState
from pccpipe.record.step_state import AttemptState, StepState
from pccpipe.target import ContainerSettings, Isolation
from pccpipe.views.text import harmless_line, shorten, user
from pccpipe.words import memory

SHOWN = 20
"""Names of hidden files that a line lists."""
_PLACES = {Place.CONTAINER: "in a container", Place.VM: "on the VM", Place.LOCAL: "on this machine"}
_OUTSIDE = {Place.CONTAINER: "", Place.VM: " in no container", Place.LOCAL: " in no container"}
_ORDER = [Place.CONTAINER, Place.VM, Place.LOCAL]
"""From the most isolation to the least."""


def verdict(state: RunState) -> str:
    """Say in one line where the run's commands ran, and which had less isolation than they asked for."""
    began = [step for step in state.steps.values() if step.had]
    if not began:
        return ""
    counts = Counter(_where(step, state) for step in began)
    places = sorted(counts, key=lambda words: [not words.startswith(place) for place in _PLACES.values()])
    downgraded = [downgrade.step for downgrade in state.downgrades]
    less = list(dict.fromkeys([*downgraded, *(step.path for step in began if any(map(_is_short, step.attempts)))]))
    loose = [step.path for step in state.steps.values() if any(_is_loose(attempt) for attempt in step.attempts)]
    parts = [", ".join(f"{counts[words]} {words}" for words in places)]
    if less:
        parts.append(f"less than asked for: {', '.join(less)}")
    elif not any(_is_led_elsewhere(step) for step in began):
        parts.append("none had less than it asked for")
    parts += [f"loosened: {', '.join(loose)}"] if loose else []
    forgeable = [step.path for step in state.steps.values() if step.ended and step.ended.unattested]
    parts += [f"unattested results: {', '.join(forgeable)}"] if forgeable else []
    return "; ".join(parts)


def _where(step: StepState, state: RunState) -> str:
    """Say where a step's last command ran, and whether that is where it asked to."""
    assert step.had
    if not _is_led_elsewhere(step):
        return f"{_PLACES[step.had.place]}{_OUTSIDE[step.had.place]}"
    asked_place = "in the container" if step.asked is Place.CONTAINER else "on the VM"
    if any(downgrade.step == step.path for downgrade in state.downgrades):
        why = "a fallback"
    else:
        why = "--local" if state.local else f"isolation_mode: {state.isolation_mode.value}"
    return f"{_PLACES[step.had.place]}, not {asked_place} it asked for ({why})"


def _is_led_elsewhere(step: StepState) -> bool:
    """Say whether its last command ran in a place with less isolation than it asked for."""
    return bool(step.had and step.asked and _ORDER.index(step.had.place) > _ORDER.index(step.asked))


def _is_short(attempt: AttemptState) -> bool:
    """Say whether the engine gave less than was asked of it."""
    return bool(attempt.had and attempt.settings and any(shortfalls(attempt.settings, attempt.had)))


def _is_loose(attempt: AttemptState) -> bool:
    return attempt.had is not None and attempt.settings is not None and bool(attempt.settings.loosened)


def isolation_lines(had: Isolation) -> list[str]:
    """Say what a command had besides its place, user, limits and workspace, which `text.isolation` says."""
    lines = list(_outside(had)) if had.place is not Place.CONTAINER else list(_inside(had))
    return [harmless_line(line) for line in lines]


def settings_lines(settings: ContainerSettings) -> list[str]:
    """Say what the step asked of its container, and which settings are weaker than the defaults."""
    limits = {"memory": memory(settings.memory) if settings.memory else None, "cpus": settings.cpus}
    parts = [settings.image, f"network {settings.network}"]
    parts += [f"{name} {value or 'unlimited'}" for name, value in {**limits, "pids": settings.pids}.items()]
    parts += [f"runtime {settings.runtime}"] if settings.runtime else []
    parts += ["workspace read-only"] if settings.read_only_workspace else []
    parts += ["root file system read-only"] if settings.read_only_root else []
    lines = [f"asked for: container {', '.join(parts)}"]
    if settings.loosened:
        lines.append(f"loosened by the pipeline: {'; '.join(settings.loosened)}")
    return [harmless_line(line) for line in lines]


def _outside(had: Isolation) -> Iterator[str]:
    where = "on the VM" if had.place is Place.VM else "on this machine"
    docker = ", who may use Docker (so: as root)" if had.engine_at_hand else ""
    yield f"ran {where} directly, in no container, as {user(had)}{docker}"
    if had.escapes_unseen:
        yield "a process that left its session may still run: this machine has no /proc to find it in"


def _inside(had: Isolation) -> Iterator[str]:
    if had.capabilities is None:
        yield "its isolation is unknown: the engine did not say"
        return
    if had.user.partition(":")[0] in {"0", "root"}:
        yield "its user was root"
    names = ", ".join(had.capabilities) or "none"
    root = "read-only" if had.read_only_root else "writable"
    yield f"capabilities {names}; {', '.join(had.security) or 'no security options'}"
    init = "init" if had.init else "no init"
    yield f"runtime {had.runtime or 'unknown'}, {init}, root file system {root}"
    yield f"shared with {had.host}: {', '.join(had.shared) or 'nothing'}"
    for mount in had.mounts:
        yield f"mount {mount}"
    if had.hidden:
        more = ", and more: `hidden` in run.json" if len(had.hidden) > SHOWN else ""
        names = ", ".join(repr(shorten(path, 80)) for path in had.hidden[:SHOWN])
        yield f"hidden from it, because agents take it for instructions: {names}{more}"
