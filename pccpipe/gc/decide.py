"""What goes and what stays, decided by facts alone."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, StrEnum
from typing import assert_never

from msgspec import Struct

CUT_OFF_LIMIT = 660.0
"""For `Moment.cut_off_limit`, with the `lost` limit that a project has if it names none."""


class ThingKind(StrEnum):
    CONTAINER = "container"
    WORKSPACE = "workspace"
    """A run's copy of the code, on the VM."""
    COPY = "copy"
    """The same at home, in the run's record, or what is beside it: an agent's work may be nowhere else."""
    STATE = "state"
    """What is kept of a run's commands on a machine."""
    LEASE = "lease"
    PROCESSES = "processes"
    """What commands began, of a run that has no folder for its commands: nobody can follow them."""
    STRANGE = "unknown"
    """It is where ours are, and is none of ours."""


class ContainerFacts(Struct, frozen=True):
    """Times are in seconds since the epoch, by the clock of the engine's machine."""

    id: str
    is_running: bool
    deadline: float | None
    """When its command must have ended; None if its label does not say."""

    def is_past_deadline(self, now: float) -> bool:
        return self.deadline is not None and self.deadline < now


class Thing(Struct, frozen=True):
    """One thing of a run's that can be removed."""

    kind: ThingKind
    name: str
    """Of the container, or in its folder."""
    run_id: str
    size: int = 0
    """Bytes on the disk."""
    touched: float | None = None
    """When it last changed, by its machine's clock; None if that can't be known."""
    container: ContainerFacts | None = None
    beat: float | None = None
    """Of a lease: seconds since its last sign of life; None for one from before a reboot."""
    is_stale: bool = False
    """Of a lease."""
    has_undiffed_changes: bool = False
    """Of a copy: it holds changes that no diff has, or nobody can tell."""
    is_only_copy: bool = False
    """Of a workspace on the VM: it holds changes that were not brought back, or nobody can tell."""


class Record(Enum):
    """What the records here say of a run."""

    NONE = "none"
    OPEN = "open"
    """It has not ended, and no process here runs it: it may still be resumed."""
    WAITING = "waiting"
    """For a person, however long that takes; no process runs it meanwhile."""
    STOPPED = "stopped"
    """It can be resumed, and what an agent made may be on the VM alone."""
    HELD = "held"
    """A process here runs it."""
    ENDED = "ended"


class RunFacts(Struct, frozen=True):
    """What is known of a run, beside its things."""

    record: Record = Record.NONE
    has_processes: bool = False
    """A process of pccpipe's own sees to the end of one of its commands. An environment proves nothing."""
    is_recorded: bool = False
    """What runs of it was begun by the run of this record, and not by another one of the same name elsewhere."""
    is_discarded: bool = False
    """A person named it: its changes go as well."""


class Why(Enum):
    """Why a thing goes or stays. A verdict's `seconds` are those that the comment speaks of."""

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
    UNTOLD_CHANGES = "untold changes"
    ONLY_COPY = "only copy"
    DISCARDED = "discarded"
    ENGINE_UNKNOWN = "engine unknown"
    NOT_OURS = "not ours"


class Decision(Struct, frozen=True):
    goes: bool
    why: Why
    seconds: float | None = None


class Moment(Struct, frozen=True):
    """What holds for all runs of a place."""

    now: float
    """By its machine's clock."""
    older_than: float
    """Seconds for which a run that nobody can tell of must have been still."""
    cut_off_limit: float = CUT_OFF_LIMIT
    """Seconds for which a run may only be cut off from its VM: a little more than the `lost` limit.

    To end its lease earlier would end the run, and a stale lease is in nobody's way.
    """
    engine_known: bool = True
    """Whether all containers are known; else one may run of which nothing is seen."""


def decide(things: Sequence[Thing], run: RunFacts, moment: Moment) -> list[Decision]:
    """What becomes of each thing of one run."""
    if any(thing.kind is ThingKind.STRANGE for thing in things):
        return [Decision(False, Why.NOT_OURS)] * len(things)
    life = _life(things, run, moment)
    if life:
        return [life] * len(things)
    if run.is_discarded:
        return [Decision(True, Why.DISCARDED)] * len(things)
    if run.record is Record.ENDED:
        return [_of_ended(thing) for thing in things]
    stillness = _stillness(things, moment)
    return [_of_left(thing, run, moment, stillness) for thing in things]


def _life(things: Sequence[Thing], run: RunFacts, moment: Moment) -> Decision | None:
    """Why nothing of it may be touched, if it lives."""
    for thing in things:
        if thing.kind is ThingKind.LEASE and not thing.is_stale:
            return Decision(False, Why.LEASE_IS_FRESH, thing.beat)
    if run.record is Record.HELD:
        return Decision(False, Why.HELD)
    if run.record is Record.ENDED and run.is_recorded:
        return None  # what still runs was left behind when the VM could not be reached
    if run.has_processes:
        return Decision(False, Why.PROCESS_RUNS)
    for thing in things:
        container = thing.container
        if container and container.is_running and not container.is_past_deadline(moment.now):
            left = container.deadline - moment.now if container.deadline is not None else None
            return Decision(False, Why.CONTAINER_RUNS, left)
    return None


def _of_ended(thing: Thing) -> Decision:
    if thing.kind is ThingKind.LEASE:
        return Decision(True, Why.STALE_LEASE, thing.beat)
    if thing.has_undiffed_changes:
        return Decision(False, Why.UNTOLD_CHANGES)
    if thing.is_only_copy:
        return Decision(False, Why.ONLY_COPY)
    return Decision(True, Why.OVER)


def _stillness(things: Sequence[Thing], moment: Moment) -> float | None:
    """Seconds since anything of it changed; None if that can't be known."""
    changes: list[float] = []
    for thing in things:
        if thing.kind in {ThingKind.LEASE, ThingKind.PROCESSES}:
            continue
        if thing.touched is None:
            return None
        changes.append(thing.touched)
    return max(0.0, moment.now - max(changes)) if changes else 0.0


def _of_left(thing: Thing, run: RunFacts, moment: Moment, stillness: float | None) -> Decision:
    """Nobody runs it now, as far as is seen; somebody may resume it."""
    match thing.kind:
        case ThingKind.LEASE:
            is_cut_off = thing.beat is not None and thing.beat < min(moment.cut_off_limit, moment.older_than)
            return Decision(not is_cut_off, Why.CUT_OFF if is_cut_off else Why.STALE_LEASE, thing.beat)
        case ThingKind.COPY:
            return Decision(False, Why.INTERRUPTED if run.record is Record.OPEN else Why.NOT_ENDED)
        case ThingKind.PROCESSES:
            return Decision(True, Why.STRAY)
        case ThingKind.CONTAINER if thing.container and thing.container.is_past_deadline(moment.now):
            return Decision(True, Why.PAST_DEADLINE, moment.now - (thing.container.deadline or 0.0))
        case ThingKind.CONTAINER | ThingKind.WORKSPACE | ThingKind.STATE:
            if not moment.engine_known:
                return Decision(False, Why.ENGINE_UNKNOWN)
            if run.record is Record.WAITING and moment.older_than > 0:
                return Decision(False, Why.WAITING)
            if run.record is Record.STOPPED:
                return Decision(False, Why.STOPPED)
            if thing.is_only_copy:
                return Decision(False, Why.ONLY_COPY)
            is_old = (0.0 if stillness is None else stillness) >= moment.older_than
            if run.record is Record.OPEN and not is_old:
                return Decision(False, Why.INTERRUPTED, stillness)
            return Decision(is_old, Why.UNTOUCHED if is_old else Why.TOUCHED, stillness)
        case ThingKind.STRANGE:
            return Decision(False, Why.NOT_OURS)
        case _:
            assert_never(thing.kind)
