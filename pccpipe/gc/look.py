"""Finds what runs left on a machine: their folders in two round trips, their containers, and the lease."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import replace

from pccpipe import limits
from pccpipe.detached.programs import RunDir
from pccpipe.docker_api.engine import DockerEngine
from pccpipe.docker_api.isolation import part
from pccpipe.docker_api.networks import Networks
from pccpipe.docker_api.service_settings import SERVICE_LABEL, STATE_LABEL
from pccpipe.docker_api.settings import IN
from pccpipe.errors import Nonsense, Unavailable
from pccpipe.gc.decide import CUT_OFF_LIMIT, ContainerFacts, Recorded, RunFacts, Thing, ThingKind
from pccpipe.gc.records import Records
from pccpipe.layout import COPIES, IO, KEPT, STATES, SYSTEM, WORKSPACES, SystemDir
from pccpipe.machine import lease
from pccpipe.machine.answers import number, number_or_none
from pccpipe.machine.base import Machine
from pccpipe.machine.gate import plain
from pccpipe.machine.lease import read_lease
from pccpipe.machine.retry import UNREACHABLE, reconnecting
from pccpipe.machine.script import shell_functions
from pccpipe.outcome import Reason
from pccpipe.record.fence import GIT
from pccpipe.record.journal import RUN_ID
from pccpipe.supervisor.lines import is_alive
from pccpipe.values import Json

_CONTAINER = re.compile("[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
LOOK_TIMEOUT = 300.0
"""Seconds for the listing, which visits every file."""


class Site(Struct, frozen=True):
    """A machine to clean up.

    Args:
        system: the folder that contains the runs' folders; absolute.
        engine: that of the machine, to look for containers.
        needs_engine: an engine that does not answer is a problem.
        lease_root: the VM's folder for projects; None for the controller, which has no lease.
        runs: the name of the folder in `system` with the records and the local copies; empty on a VM.
        run_as: the account of the VM that commands run as, beside the login.
        cut_off_limit: see `SiteFacts`.
        discarded: the ids of runs whose changes a person discards.
    """

    machine: Machine
    system: str
    records: Records
    engine: DockerEngine | None = None
    needs_engine: bool = True
    lease_root: str | None = None
    runs: str = ""
    run_as: str | None = None
    cut_off_limit: float = CUT_OFF_LIMIT
    discarded: frozenset[str] = frozenset()

    @staticmethod
    def on_vm(
        machine: Machine,
        root: str,
        records: Records,
        engine: DockerEngine | None,
        cut_off_limit: float = CUT_OFF_LIMIT,
        run_as: str | None = None,
    ) -> Site:
        """Return the project's VM as a site; `root` is its folder for projects (`vm.root`)."""
        system = SystemDir.on_vm(root).path
        return Site(machine, system, records, engine, lease_root=root, run_as=run_as, cut_off_limit=cut_off_limit)

    @property
    def is_here(self) -> bool:
        """It is the controller, which has records."""
        return bool(self.runs)

    def place_of(self, run_id: str) -> RunDir:
        return RunDir(run_id, SystemDir(self.system).state(run_id))


class RunThings(Struct):
    """The things of one run."""

    run_id: str
    run: RunFacts = field(default_factory=RunFacts)
    things: list[Thing] = field(default_factory=list)


class Inventory(Struct):
    """All that gc found. `foreign` names things that pccpipe did not create; `problems` and `unseen` are sentences."""

    now: float = 0.0
    groups: dict[str, RunThings] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    engine_known: bool = True
    sees_processes: bool = True
    """There is a /proc. On the controller, locks say what runs as well."""
    tags: set[str] = field(default_factory=set)
    """The tags of processes that commands began."""
    lanes: set[str] = field(default_factory=set)
    """The tags of processes that wait for commands."""
    living: set[str] = field(default_factory=set)
    """The runs with a process that supervises a command."""
    held: set[str] = field(default_factory=set)
    """The runs with a process that supervises a container, also for some moments after its end."""
    marks: dict[str, set[str]] = field(default_factory=dict)
    """The marks of running commands and containers, by run."""

    def add(self, thing: Thing, elsewhere: str = "") -> None:
        group = self.groups.setdefault(f"{thing.run_id}{elsewhere}", RunThings(thing.run_id))
        group.things.append(thing)


def script(name: str) -> str:
    """Return the text of a script of this folder, preceded by the functions that it needs."""
    return lease.program() + shell_functions(Path(__file__).with_name(name))


def look(site: Site) -> Inventory:
    """Find everything, with the facts about its runs. Raises `Unavailable` if it cannot reach the machine."""
    found = Inventory()
    _look_at_folders(site, found)
    if site.is_here:
        found.living |= {run_id for run_id in found.groups if is_alive(site.place_of(run_id).state)}
    _look_for_strays(site, found)
    _look_at_lease(site, found)
    _look_at_engine(site, found)
    for key, group in found.groups.items():
        if "/" not in key:  # a key with a slash is a run of another root, without local records
            group.run = _run(site, found, group)
        group.things = list(_completed(site, found, group))
    return found


def why_alive(site: Site, found: Inventory, holder: str = "") -> str:
    """Return why the account's processes may belong to a live run; empty if there is none on the machine.

    Args:
        holder: the name under which the caller itself has the VM.
    """
    for group in found.groups.values():
        if group.run_id == holder:
            continue
        if any(thing.kind is ThingKind.LEASE and not thing.is_stale for thing in group.things):
            return f"run {group.run_id} has the VM"
        if group.run_id in found.living | found.held:
            return f"a command of run {group.run_id} runs"
    ours = {site.place_of(group.run_id).tag for group in found.groups.values()}
    for tag in sorted((found.tags | found.lanes) - ours):
        run_id = tag.rpartition("-")[0]
        if RUN_ID.fullmatch(run_id) and site.place_of(run_id).tag != tag:
            return f"run {run_id} of another root may be alive"
    return ""


def _look_at_folders(site: Site, found: Inventory) -> None:
    settings = f"pcc_system={shlex.quote(site.system)} pcc_runs={shlex.quote(site.runs)}"
    program = f"{settings}\n{script('look.sh')}"
    done = reconnecting(site.machine, lambda: site.machine.run(program, LOOK_TIMEOUT))
    if done.code:
        words = done.stderr.decode(errors="replace").strip() or f"exit status {done.code}"
        raise Unavailable(Reason.WORKSPACE_REFUSED, f"{site.machine.host}: {site.system} is not readable: {words}")
    host = site.machine.host
    if done.stdout.count(b"\0") > limits.LEFT_BY_RUNS.most:
        raise Nonsense(host, "list of what runs left", limits.LEFT_BY_RUNS.exceeded("it"))
    *fields, rest = done.stdout.decode(errors="surrogateescape").split("\0")
    if len(fields) % 5 or rest or fields[:1] != ["now"]:
        raise Nonsense(host, "list of what runs left", fields[:5] or rest)
    places = {STATES, WORKSPACES, COPIES, IO, SYSTEM}
    for place, name, what, size, last in zip(*(fields[index::5] for index in range(5)), strict=True):
        match what:
            case "folder" | "other" | "more" | "wrong" if place not in places:
                raise Nonsense(host, "list of what runs left", place)
            case "folder" if RUN_ID.fullmatch(name):
                kind = ThingKind.WORKSPACE if place in {WORKSPACES, COPIES} else ThingKind.STATE
                found.add(_folder(kind, f"{place}/{name}", name, size, last))
            case "copy" if site.runs and RUN_ID.fullmatch(place.removeprefix(f"{site.runs}/")):
                found.add(_folder(ThingKind.COPY, f"{place}/{name}", place.rpartition("/")[2], size, last))
            case "copy" if site.runs and place.startswith(f"{site.runs}/"):
                pass  # a folder with a name that no run has
            case "folder" | "other" if place == STATES and name == GIT:
                pass  # keeps git out of the folder
            case "folder" | "other":
                found.foreign.append(f"{site.system}/{place}/{name}")
            case "more":
                found.unseen.append(f"{size} more things in {site.system}/{place} are beyond the limit of one gc")
            case "wrong":
                found.problems.append(f"gc did not read {site.system}/{place}: {last}")
            case "-":
                _add_fact(found, host, place, name, last)
            case _:
                raise Nonsense(host, "list of what runs left", (place, name, what))


def _add_fact(found: Inventory, host: str, kind: str, name: str, last: str) -> None:
    """Add a row that does not describe a folder. Raises Nonsense."""
    match kind:
        case "now" if not found.now:
            found.now = float(number(host, "time", last))
        case "blind":
            found.sees_processes = False
            found.unseen.append("this system hides the processes that runs left; locks show which runs are alive")
        case "tag":
            found.tags.add(name)
        case "lane":
            found.lanes.add(name)
        case "live" | "held" | "claim" if not RUN_ID.fullmatch(name):
            pass  # a folder with a name that no run has
        case "live":
            found.living.add(name)
        case "held":
            found.held.add(name)
        case "claim":
            found.marks.setdefault(name, set()).add(last)
        case _:
            raise Nonsense(host, "list of what runs left", kind)


def _folder(kind: ThingKind, name: str, run_id: str, size: str, changed: str) -> Thing:
    return Thing(kind, name, run_id, (number_or_none(size) or 0) * 1024, number_or_none(changed))


def _look_at_lease(site: Site, found: Inventory) -> None:
    if site.lease_root is None:
        return
    held = read_lease(site.machine, site.lease_root)
    if held:
        found.add(Thing(ThingKind.LEASE, "lease", held.run_id, beat=held.last_beat, is_stale=held.is_stale))


def _look_for_strays(site: Site, found: Inventory) -> None:
    """Add processes that claim a run of this root, if that run has no folder for its commands."""
    for tag in sorted(found.tags):
        run_id = tag.rpartition("-")[0]
        if RUN_ID.fullmatch(run_id) and site.place_of(run_id).tag == tag and not _has_state(found, run_id):
            found.add(Thing(ThingKind.PROCESSES, "processes", run_id))


def _has_state(found: Inventory, run_id: str) -> bool:
    group = found.groups.get(run_id)
    return group is not None and any(thing.name == f"{STATES}/{run_id}" for thing in group.things)


def _look_at_engine(site: Site, found: Inventory) -> None:
    if site.engine is None:
        return
    try:
        made, networks = _containers(site.engine), Networks(site.engine).accounts("pccpipe.run")
    except UNREACHABLE as error:
        if isinstance(error, Unavailable) and error.reason is Reason.ENGINE_MISSING:
            return
        if site.needs_engine:
            found.engine_known = False
            hint = f"; {error.hint}" if isinstance(error, Unavailable) and error.hint else ""
            found.problems.append(f"gc did not look for containers: {error}{hint}")
        return
    for each in made:
        _add_container(site, found, each)
    for each in networks:
        _add_network(site, found, each)


def _containers(engine: DockerEngine) -> list[dict[str, Json]]:
    try:
        return engine.containers("pccpipe.run", size=True)
    except Unavailable as error:
        if error.reason is not Reason.ENGINE_NOT_ANSWERING:
            raise
        # Adding up the size of a large container may exceed the timeout of a call.
        return engine.containers("pccpipe.run")


def _add_container(site: Site, found: Inventory, made: Mapping[str, Json]) -> None:
    labels = made.get("Labels")
    run_id = str(labels.get("pccpipe.run")) if isinstance(labels, dict) else ""
    names = made.get("Names")
    stated = str(names[0]).removeprefix("/") if isinstance(names, list) and names else ""
    name = stated if _CONTAINER.fullmatch(stated) else str(made["Id"])[:12]
    if not RUN_ID.fullmatch(run_id):
        found.foreign.append(f"container {name}")
        return
    deadline = str(labels.get("pccpipe.deadline", "")) if isinstance(labels, dict) else ""
    is_running = made.get("State") in {"running", "paused", "restarting"}
    # Labels are untrusted: code on the VM that may use the engine can write any.
    is_service = isinstance(labels, dict) and SERVICE_LABEL in labels
    container = ContainerFacts(str(made["Id"]), is_running, number_or_none(deadline), is_service)
    size, created = number_or_none(made.get("SizeRw")), number_or_none(made.get("Created"))
    thing = Thing(
        ThingKind.CONTAINER,
        name,
        run_id,
        size or 0,
        created,
        container,
    )
    elsewhere = _other_root(site, made, run_id)
    found.add(thing, elsewhere)
    if is_running and not elsewhere and not is_service:
        found.marks.setdefault(run_id, set()).add(container.id)


def _add_network(site: Site, found: Inventory, made: Mapping[str, Json]) -> None:
    name, run_id = str(made.get("Name")), str(part(made, "Labels").get("pccpipe.run"))
    if not _CONTAINER.fullmatch(name) or not RUN_ID.fullmatch(run_id):
        found.foreign.append(f"network {name}")
        return
    try:
        created: float | None = datetime.fromisoformat(str(made.get("Created"))).timestamp()
    except (ValueError, OverflowError):
        created = None
    found.add(Thing(ThingKind.NETWORK, name, run_id, touched=created), _other_root(site, made, run_id))


def _other_root(site: Site, made: Mapping[str, Json], run_id: str) -> str:
    """Return the folder of a thing of another root, whose run may have the same name as one of this root."""
    state = part(made, "Labels").get(STATE_LABEL)
    if state is not None:
        return "" if state == site.place_of(run_id).state else str(state)
    mounts = made.get("Mounts")
    for mount in mounts if isinstance(mounts, list) else []:
        if isinstance(mount, dict) and mount.get("Destination") == IN:
            source = plain(str(mount.get("Source")))
            return "" if source.startswith(f"{site.place_of(run_id).state}/") else source
    return ""


def _run(site: Site, found: Inventory, group: RunThings) -> RunFacts:
    record = site.records.of(group.run_id)
    marks = found.marks.get(group.run_id, set())
    return RunFacts(
        record,
        # Without the engine, a container's supervisor proves that it runs.
        has_processes=group.run_id in found.living or (not found.engine_known and group.run_id in found.held),
        is_recorded=record is Recorded.ENDED and site.records.names_all(group.run_id, marks),
        is_discarded=group.run_id in site.discarded,
    )


def _completed(site: Site, found: Inventory, group: RunThings) -> Iterator[Thing]:
    """Yield the things with the facts that are too costly to ask for all of them."""
    names = {thing.name for thing in group.things}
    has_copy = f"{site.runs}/{group.run_id}/workspace" in names
    ended = group.run.record is Recorded.ENDED
    undiffed = ended and has_copy and site.records.has_undiffed_changes(group.run_id)
    for thing in group.things:
        if thing.kind is ThingKind.COPY:
            # Without the copy, the one from before the last fetch is the last.
            is_last = not has_copy and thing.name.endswith(".old")
            yield replace(thing, has_undiffed_changes=undiffed or is_last)
        elif thing.kind is ThingKind.WORKSPACE:
            only = KEPT in group.run_id or site.records.has_only_copy_on_vm(group.run_id)
            yield replace(thing, is_only_copy=only)
        elif thing.container and not ended:
            changed = found.now if thing.container.is_running else _finished(site, thing, found.now)
            if changed is not None:
                yield replace(thing, touched=changed)
        else:
            yield thing


def _finished(site: Site, thing: Thing, now: float) -> float | None:
    """Return when a container ended, or was created if it never started; None if it is gone."""
    assert site.engine is not None
    assert thing.container is not None
    try:
        inspected = site.engine.inspect(thing.container.id)
    except UNREACHABLE:
        return now  # it existed a moment ago
    if inspected is None:
        return None
    state = inspected.get("State")
    words = str(state.get("FinishedAt", "")) if isinstance(state, dict) else ""
    try:
        finished = datetime.fromisoformat(words).timestamp()
    except (ValueError, OverflowError, OSError):
        finished = 0.0
    return max(finished, thing.touched or 0.0)
