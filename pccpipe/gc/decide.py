"""Decides which things of runs to remove, by facts alone."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, StrEnum
from typing import assert_never

from msgspec import Struct

CUT_OFF_LIMIT = 660.0
"""The default of `SiteFacts.cut_off_limit`, for a project with the default `lost_after`."""


class ThingKind(StrEnum):
    CONTAINER = "container"
    NETWORK = "network"
    """A network of services."""
    WORKSPACE = "workspace"
    """A run's copy of the code, on the VM."""
    COPY = "copy"
    """A local copy in the run's record, or beside it: an agent's work may exist nowhere else."""
    STATE = "state"
    """The files of a run's commands on a machine."""
    LEASE = "lease"
    PROCESSES = "processes"
    """Processes of a run that has no folder for its commands, so pccpipe cannot follow them."""
    FOREIGN = "unknown"
    """A thing in pccpipe's folders that pccpipe did not create."""


class ContainerFacts(Struct, frozen=True):
    """Facts about a container. Times are in seconds since the epoch, by the clock of the engine's machine."""

    id: str
    is_running: bool
    deadline: float | None
    """The time by which its command must have ended; None if its label does not say."""
    is_service: bool = False
    """It lives beside a step: that it runs does not prove that the run does."""

    def is_past_deadline(self, now: float) -> bool:
        return self.deadline is not None and self.deadline < now


class Thing(Struct, frozen=True):
    """One thing of a run that can be removed."""

    kind: ThingKind
    name: str
    """The name of the container, or the path in the folder `.system`."""
    run_id: str
    size: int = 0
    """Bytes on the disk."""
    touched: float | None = None
    """The time of its last change, by its machine's clock; None if unknown."""
    container: ContainerFacts | None = None
    beat: float | None = None
    """Of a lease: seconds since its last sign of life; None for one from before a reboot."""
    is_stale: bool = False
    """Of a lease: its owner no longer gives signs of life."""
    has_undiffed_changes: bool = False
    """Of a copy: it has, or may have, changes that are in no diff."""
    is_only_copy: bool = False
    """Of a workspace on the VM: it has, or may have, changes that were not fetched."""


class Recorded(Enum):
    """The state of a run as the local records have it."""

    NONE = "none"
    OPEN = "open"
    """It has not ended, and no local process runs it: a person may resume it."""
    WAITING = "waiting"
    """It waits for a person, or a model, without a time limit; no process runs it meanwhile."""
    STOPPED = "stopped"
    """It can be resumed, and an agent's work may exist only on the VM."""
    HELD = "held"
    """A local process runs it."""
    ENDED = "ended"


class RunFacts(Struct, frozen=True):
    """The facts about a run, beside its things."""

    record: Recorded = Recorded.NONE
    has_processes: bool = False
    """One of pccpipe's own processes supervises one of its commands. A process's environment proves nothing."""
    is_recorded: bool = False
    """The running commands belong to the run of this record, not to another run of the same name elsewhere."""
    is_discarded: bool = False
    """A person named it: gc removes its changes as well."""


class Why(Enum):
    """The reason of a decision. A comment says what the decision's `seconds` measure."""

    LEASE_IS_FRESH = "lease is fresh"  # since its last sign of life
    HELD = "held"
    PROCESS_RUNS = "process runs"
    CONTAINER_RUNS = "container runs"  # until its deadline
    OVER = "over"
    STRAY = "stray"
    PAST_DEADLINE = "past deadline"  # since then
    STALE_LEASE = "stale lease"  # since its last sign of life
    CUT_OFF = "cut off"  # since its last sign of life
    UNTOUCHED = "untouched"  # since its last change
    TOUCHED = "touched"  # since its last change
    WAITING = "waiting"
    STOPPED = "stopped"
    NOT_ENDED = "not ended"
    INTERRUPTED = "interrupted"  # since its last change
    UNDIFFED_CHANGES = "untold changes"
    ONLY_COPY = "only copy"
    DISCARDED = "discarded"
    ENGINE_UNKNOWN = "engine unknown"
    NOT_OURS = "not ours"


class Decision(Struct, frozen=True):
    removes: bool
    why: Why
    seconds: float | None = None


class SiteFacts(Struct, frozen=True):
    """The facts about a site that hold for all of its runs."""

    now: float
    """The time by its machine's clock."""
    older_than: float
    """Seconds without a change after which gc removes a run whose end is unknown."""
    cut_off_limit: float = CUT_OFF_LIMIT
    """Seconds for which a run may be cut off from its VM: a little more than `lost_after`.

    Ending its lease earlier would end the run, and a stale lease blocks no other run.
    """
    engine_known: bool = True
    """All containers are known; otherwise gc may miss a running one."""


def decide(things: Sequence[Thing], run: RunFacts, site: SiteFacts) -> list[Decision]:
    """Decide about each thing of one run."""
    if any(thing.kind is ThingKind.FOREIGN for thing in things):
        return [Decision(False, Why.NOT_OURS)] * len(things)
    alive = _alive(things, run, site)
    if alive:
        return [alive] * len(things)
    if run.is_discarded:
        return [Decision(True, Why.DISCARDED)] * len(things)
    if run.record is Recorded.ENDED:
        return [_of_ended(thing) for thing in things]
    idle = _idle_seconds(things, site)
    return [_of_open(thing, run, site, idle) for thing in things]


def _alive(things: Sequence[Thing], run: RunFacts, site: SiteFacts) -> Decision | None:
    """Return the decision to keep everything, if the run is alive."""
    for thing in things:
        if thing.kind is ThingKind.LEASE and not thing.is_stale:
            return Decision(False, Why.LEASE_IS_FRESH, thing.beat)
    if run.record is Recorded.HELD:
        return Decision(False, Why.HELD)
    if run.record is Recorded.ENDED and run.is_recorded:
        return None  # its commands run on because the VM was unreachable at its end
    if run.has_processes:
        return Decision(False, Why.PROCESS_RUNS)
    for thing in things:
        container = thing.container
        if container is None or container.is_service:
            continue
        if container.is_running and not container.is_past_deadline(site.now):
            left = container.deadline - site.now if container.deadline is not None else None
            return Decision(False, Why.CONTAINER_RUNS, left)
    return None


def _of_ended(thing: Thing) -> Decision:
    if thing.kind is ThingKind.LEASE:
        return Decision(True, Why.STALE_LEASE, thing.beat)
    if thing.has_undiffed_changes:
        return Decision(False, Why.UNDIFFED_CHANGES)
    if thing.is_only_copy:
        return Decision(False, Why.ONLY_COPY)
    return Decision(True, Why.OVER)


def _idle_seconds(things: Sequence[Thing], site: SiteFacts) -> float | None:
    """Return the seconds since the last change of any of its things; None if unknown."""
    changes: list[float] = []
    for thing in things:
        if thing.kind in {ThingKind.LEASE, ThingKind.PROCESSES}:
            continue
        if thing.touched is None:
            return None
        changes.append(thing.touched)
    return max(0.0, site.now - max(changes)) if changes else 0.0


def _of_open(thing: Thing, run: RunFacts, site: SiteFacts, idle: float | None) -> Decision:
    """Decide about a thing of a run that seems not to run now and may be resumed."""
    match thing.kind:
        case ThingKind.LEASE:
            is_cut_off = thing.beat is not None and thing.beat < min(site.cut_off_limit, site.older_than)
            return Decision(not is_cut_off, Why.CUT_OFF if is_cut_off else Why.STALE_LEASE, thing.beat)
        case ThingKind.COPY:
            return Decision(False, Why.INTERRUPTED if run.record is Recorded.OPEN else Why.NOT_ENDED)
        case ThingKind.PROCESSES:
            return Decision(True, Why.STRAY)
        case ThingKind.CONTAINER if thing.container and thing.container.is_past_deadline(site.now):
            return Decision(True, Why.PAST_DEADLINE, site.now - (thing.container.deadline or 0.0))
        case ThingKind.CONTAINER | ThingKind.NETWORK | ThingKind.WORKSPACE | ThingKind.STATE:
            if not site.engine_known:
                return Decision(False, Why.ENGINE_UNKNOWN)
            if run.record is Recorded.WAITING and site.older_than > 0:
                return Decision(False, Why.WAITING)
            if run.record is Recorded.STOPPED:
                return Decision(False, Why.STOPPED)
            if thing.is_only_copy:
                return Decision(False, Why.ONLY_COPY)
            is_old = (0.0 if idle is None else idle) >= site.older_than
            if run.record is Recorded.OPEN and not is_old:
                return Decision(False, Why.INTERRUPTED, idle)
            return Decision(is_old, Why.UNTOUCHED if is_old else Why.TOUCHED, idle)
        case ThingKind.FOREIGN:
            return Decision(False, Why.NOT_OURS)
        case _:
            assert_never(thing.kind)
