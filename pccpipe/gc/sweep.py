"""Removes things that no run needs, one by one; a failed removal does not stop the others."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from pccpipe.detached import as_account, programs
from pccpipe.docker_api.engine import DockerEngine
from pccpipe.docker_api.networks import Networks
from pccpipe.errors import PccpipeError, Unavailable, VmBusy
from pccpipe.gc.changed import changes
from pccpipe.gc.decide import Decision, Recorded, SiteFacts, Thing, ThingKind, decide
from pccpipe.gc.lease_folder import stray_files
from pccpipe.gc.look import Inventory, RunThings, Site, look, script, why_alive
from pccpipe.gc.records import OnlyEnded
from pccpipe.gc.report import OtherRemoval, Removal, RemovalStatus, SiteReport
from pccpipe.gc.unknown import in_words, unknown_processes
from pccpipe.machine.answers import number_or_none
from pccpipe.machine.base import Machine
from pccpipe.machine.lease import Lease, read_lease
from pccpipe.machine.retry import UNREACHABLE, reconnecting
from pccpipe.supervisor.lines import is_alive
from pccpipe.supervisor.supervised import end_supervisor

REMOVE_TIMEOUT = 300.0
"""Seconds for the removal of one run's folders."""
DAY = 24 * 3600.0
CLOCK_AHEAD = 60.0
"""Seconds by which a machine's clock may be ahead of the controller's and still count as right."""


def collect(
    site: Site,
    *,
    older_than: float = DAY,
    dry_run: bool = False,
    on_removal: Callable[[Removal], object] = lambda _: None,
    holder: str = "",
) -> SiteReport:
    """Remove what no live run needs.

    Args:
        older_than: clean up an unfinished run only if nothing of it changed for this many seconds.
        dry_run: remove nothing.
        on_removal: receives the result for each thing at once.
        holder: the name under which the caller holds the VM's lease; empty if it does not.

    Raises `Unavailable` if it cannot reach the machine.
    """
    found = look(site)
    collected = _swept(site, found, found.groups.values(), older_than, dry_run, on_removal)
    if site.lease_root is not None:
        collected.others += _stray_files(site, site.lease_root, dry_run=dry_run)
        collected.others += _strays(site, found, holder, dry_run=dry_run)
        collected.wrong += changes(site.machine, site.lease_root, site.engine)
        if unknown := unknown_processes(site.machine, site.lease_root):
            collected.wrong.append(in_words(site.machine.facts.user, unknown))
    return collected


def collect_over(
    machine: Machine,
    engine: DockerEngine | None,
    root: str,
    over: Callable[[str], bool],
    run_as: str | None = None,
    has_only_copy: Callable[[str], bool] = lambda _: False,
) -> SiteReport:
    """Remove what ended runs left on a VM, while another run starts.

    Keeps whatever still runs, and all runs that have not ended, whatever their age.

    Args:
        engine: that of the machine; None to leave containers alone.
        root: the machine's folder for projects (`vm.root`).
        over: says whether a run has ended.
        run_as: the account that commands run as, beside the login.
        has_only_copy: says whether the VM has changes of a run that were not fetched: gc keeps them.

    Raises `Unavailable` if it cannot reach the machine.
    """
    site = Site.on_vm(machine, root, OnlyEnded(over, has_only_copy), engine, run_as=run_as)
    found = look(site)
    groups = [group for group in found.groups.values() if group.run.record is Recorded.ENDED]
    for group in groups:
        # The caller takes over a stale lease itself; ending it at the same time could interfere.
        group.things = [thing for thing in group.things if not thing.is_stale]
    return _swept(site, found, groups, float("inf"), False, lambda _: None)


def _swept(
    site: Site,
    found: Inventory,
    groups: Iterable[RunThings],
    older_than: float,
    dry_run: bool,
    on_removal: Callable[[Removal], object],
) -> SiteReport:
    collected = SiteReport(site, foreign=found.foreign, problems=found.problems)
    collected.others += [OtherRemoval(words, RemovalStatus.KEPT) for words in found.unseen]
    # A clock that is ahead must not make the things of a resumable run look old.
    now = min(found.now, time.time() + CLOCK_AHEAD)
    facts = SiteFacts(now, older_than, site.cut_off_limit, found.engine_known)
    for group in sorted(groups, key=lambda group: group.run_id):
        decisions = list(zip(group.things, decide(group.things, group.run, facts), strict=True))
        for removal in _planned(decisions) if dry_run else _removed(site, found, group, decisions):
            collected.removals.append(removal)
            on_removal(removal)
    _measure(site, collected)
    return collected


def _planned(decisions: Sequence[tuple[Thing, Decision]]) -> Iterator[Removal]:
    for thing, decision in decisions:
        if decision.removes:
            yield Removal(thing, decision, RemovalStatus.PLANNED, thing.size)
        else:
            yield Removal(thing, decision, RemovalStatus.KEPT)


def _removed(
    site: Site, found: Inventory, group: RunThings, decisions: Sequence[tuple[Thing, Decision]]
) -> Iterator[Removal]:
    """Remove containers first: they have the folders mounted."""
    for thing, decision in decisions:
        if not decision.removes:
            yield Removal(thing, decision, RemovalStatus.KEPT)
    chosen = [(thing, decision) for thing, decision in decisions if decision.removes]
    if not chosen:
        return
    with site.records.unheld(group.run_id) as is_free:
        if not is_free or _has_lease(site, group.run_id):
            yield from (Removal(thing, decision, RemovalStatus.RESUMED) for thing, decision in chosen)
            return
        stuck = ""
        for thing, decision in chosen:
            if thing.container:
                stuck = _remove_container(site, thing.container.id) or stuck
                yield Removal(
                    thing,
                    decision,
                    RemovalStatus.FAILED if stuck else RemovalStatus.REMOVED,
                    0 if stuck else thing.size,
                    stuck,
                )
        for thing, decision in chosen:
            if thing.kind is ThingKind.NETWORK:
                why = _remove_network(site, thing.name)
                yield Removal(thing, decision, RemovalStatus.FAILED if why else RemovalStatus.REMOVED, words=why)
        kinds = {ThingKind.WORKSPACE, ThingKind.COPY, ThingKind.STATE, ThingKind.PROCESSES}
        folders = [each for each in chosen if each[0].kind in kinds]
        if stuck:
            words = "a container of its run is still there"
            yield from (Removal(thing, decision, RemovalStatus.FAILED, words=words) for thing, decision in folders)
        elif folders:
            yield from _remove_folders(site, found, group, folders)
        for thing, decision in chosen:
            if thing.kind is ThingKind.LEASE:
                yield _end_lease(site, thing, decision)


def _has_lease(site: Site, run_id: str) -> bool:
    """Say whether the run has the VM now, perhaps from another host; True if unknown."""
    if site.lease_root is None:
        return False
    try:
        lease = read_lease(site.machine, site.lease_root)
    except Unavailable:
        return True
    return lease is not None and lease.run_id == run_id and not lease.is_stale


def _remove_container(site: Site, container: str) -> str:
    """Remove it; return why that failed, or an empty string."""
    assert site.engine is not None
    try:
        site.engine.remove(container)
    except UNREACHABLE as error:
        return str(error)
    return ""


def _remove_network(site: Site, name: str) -> str:
    """Remove it; return why that failed, or an empty string."""
    assert site.engine is not None
    try:
        return "" if Networks(site.engine).remove(name) else "a container is in it"
    except UNREACHABLE as error:
        return str(error)


def _remove_folders(
    site: Site, found: Inventory, group: RunThings, folders: Sequence[tuple[Thing, Decision]]
) -> Iterator[Removal]:
    place = site.place_of(group.run_id)
    calls = [
        "pcc_strays_left"
        if thing.kind is ThingKind.PROCESSES
        else shlex.join(["pcc_sweep_folder", *thing.name.rsplit("/", 1)])
        for thing, _ in folders
    ]
    values = {"system": site.system, "run": group.run_id, "tag": place.tag, "account": site.run_as or ""}
    settings = " ".join(f"pcc_{name}={shlex.quote(value)}" for name, value in values.items())
    text = script("sweep.sh")
    # Ends commands only of a run that is over: it left them when its machine was unreachable.
    unless = "" if group.run.has_processes else "pcc_is_begun || "
    end = f"{unless}(\n{programs.end_run(place)}\n)" if found.sees_processes else ""
    if site.is_here and is_alive(place.state):
        if not group.run.has_processes:
            yield from (Removal(thing, decision, RemovalStatus.RESUMED) for thing, decision in folders)
            return
        end_supervisor(place.state)
    program = "\n".join([settings, text, end, *(f"({call})" for call in calls)])
    try:
        done = reconnecting(site.machine, lambda: site.machine.run(program, REMOVE_TIMEOUT))
    except Unavailable as error:
        yield from (Removal(thing, decision, RemovalStatus.FAILED, words=str(error)) for thing, decision in folders)
        return
    answers = done.stdout.decode(errors="replace").splitlines()
    answers += [f"left 0 {done.stderr.decode(errors='replace').strip()}"] * (len(folders) - len(answers))
    for (thing, decision), answer in zip(folders, answers, strict=False):
        yield _answered(thing, decision, answer)


def _answered(thing: Thing, decision: Decision, answer: str) -> Removal:
    word, _, rest = answer.partition(" ")
    match word:
        case "gone":
            return Removal(thing, decision, RemovalStatus.REMOVED, max(thing.size, (number_or_none(rest) or 0) * 1024))
        case "alive":
            return Removal(thing, decision, RemovalStatus.RESUMED)
        case _:
            left, _, words = rest.partition(" ")
            kept = number_or_none(left)
            freed = 0 if kept is None else max(0, thing.size - kept * 1024)
            return Removal(thing, decision, RemovalStatus.FAILED, freed, words)


def _stray_files(site: Site, root: str, *, dry_run: bool) -> Iterator[OtherRemoval]:
    try:
        found = stray_files(site.machine, root, remove=not dry_run)
    except Unavailable as error:
        yield OtherRemoval(str(error), RemovalStatus.FAILED)
        return
    if found.words:
        yield OtherRemoval(found.words, RemovalStatus.PLANNED if dry_run else RemovalStatus.REMOVED)


def _strays(site: Site, found: Inventory, holder: str, *, dry_run: bool) -> Iterator[OtherRemoval]:
    """Kill the account's processes, if no live run can own them."""
    if site.run_as is None or site.lease_root is None:
        return
    try:
        count = as_account.processes(site.machine, site.run_as, site.lease_root, kill=False).before
        if not count:
            return
        alive = why_alive(site, found, holder)
        words = f"{count} of {site.run_as}: {alive or 'no live run can own them'}"
        if alive or dry_run:
            yield OtherRemoval(words, RemovalStatus.KEPT if alive else RemovalStatus.PLANNED)
            return
        with _vm_held(site, site.lease_root, holder):
            left = as_account.processes(site.machine, site.run_as, site.lease_root, kill=True).after
        yield OtherRemoval(
            f"pccpipe cannot kill {left} of {site.run_as}" if left else words,
            RemovalStatus.FAILED if left else RemovalStatus.REMOVED,
        )
    except VmBusy as busy:
        yield OtherRemoval(f"the processes of {site.run_as}: {busy.message}", RemovalStatus.KEPT)
    except Unavailable as error:
        yield OtherRemoval(str(error), RemovalStatus.FAILED)


@contextlib.contextmanager
def _vm_held(site: Site, root: str, holder: str) -> Iterator[None]:
    """Keep runs from starting on the VM within the block. Raises `VmBusy`, `Unavailable`."""
    if holder:
        yield
        return
    lease = Lease(site.machine, root, "pccpipe-gc", holder="pccpipe gc, for a moment")
    lease.acquire(0, lambda: True, lambda _: None)
    try:
        yield
    finally:
        lease.release()


def _end_lease(site: Site, thing: Thing, decision: Decision) -> Removal:
    """Take it over and release it at once. Its files stay, because they order the next owners."""
    assert site.lease_root is not None
    lease = Lease(site.machine, site.lease_root, "pccpipe-gc", holder="pccpipe gc, for a moment")
    try:
        lease.acquire(0, lambda: True, lambda _: None)
    except Unavailable as error:
        return Removal(thing, decision, RemovalStatus.FAILED, words=str(error))
    except PccpipeError:
        # Another run took it over meanwhile.
        return Removal(thing, decision, RemovalStatus.RESUMED)
    lease.release()
    return Removal(thing, decision, RemovalStatus.REMOVED)


def _measure(site: Site, collected: SiteReport) -> None:
    """Measure the free space, if the machine answers."""
    disks = {"runs": site.system, **_engine_folder(site)}
    script = "\n".join(f"echo {name} $(df -Pk -- {shlex.quote(path)} 2>/dev/null)" for name, path in disks.items())
    try:
        lines = site.machine.run(script).stdout.decode(errors="replace").splitlines()
    except UNREACHABLE:
        return
    free = {name: (disk, int(left) * 1024) for name, disk, left in _disks(lines)}
    if "runs" in free:
        collected.free = free["runs"][1]
    if "engine" in free and free["engine"][0] != free.get("runs", ("",))[0]:
        collected.engine_free = free["engine"][1]


def _disks(lines: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yield from each line of df: the name of the request, the disk, and its free kilobytes."""
    for line in lines:
        # The name of the request, a heading of seven words ("Mounted on" are two), and an answer of six.
        words = line.split()
        if len(words) >= 14 and number_or_none(words[11]) is not None:
            yield words[0], words[8], words[11]


def _engine_folder(site: Site) -> dict[str, str]:
    if site.engine is None or not site.needs_engine:
        return {}
    try:
        folder = site.engine.info().get("DockerRootDir")
    except UNREACHABLE:
        return {}
    return {"engine": folder} if isinstance(folder, str) else {}
