"""Removes what is no longer needed, thing by thing; what can't be removed stops nothing."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from pccpipe.detached import as_account, programs
from pccpipe.docker_api.engine import DockerEngine
from pccpipe.errors import PccpipeError, Unavailable, VmBusy
from pccpipe.gc.changed import changes
from pccpipe.gc.decide import Decision, Moment, Record, Thing, ThingKind, decide
from pccpipe.gc.look import Inventory, RunThings, Site, look, script, why_alive
from pccpipe.gc.marks import wrong_marks
from pccpipe.gc.records import OnlyEnded
from pccpipe.gc.report import Collected, Fate, Other, Removal
from pccpipe.gc.unknown import in_words, unknown_processes
from pccpipe.machine.answers import number_or_none
from pccpipe.machine.base import Machine
from pccpipe.machine.lease import Lease, read_lease
from pccpipe.machine.retry import UNREACHABLE, reconnecting
from pccpipe.supervisor.lines import is_alive
from pccpipe.supervisor.supervised import end_supervisor

REMOVE_TIMEOUT = 300.0
"""Seconds for removing what one run has left."""
DAY = 24 * 3600.0
CLOCK_AHEAD = 60.0
"""Seconds by which a machine's clock may be ahead of this one's without being taken for wrong."""


def collect(
    site: Site,
    *,
    older_than: float = DAY,
    dry_run: bool = False,
    on_outcome: Callable[[Removal], object] = lambda _: None,
    holder: str = "",
) -> Collected:
    """Remove what no live run needs.

    Args:
        older_than: seconds for which a run must have been still that has not ended as far as is known.
        dry_run: remove nothing.
        on_outcome: told of each thing when it is done with.
        holder: the name by which the caller has the VM's lease; empty if it has not.

    Raises `Unavailable` if the machine can't be had.
    """
    found = look(site)
    collected = _swept(site, found, found.groups.values(), older_than, dry_run, on_outcome)
    if site.lease_root is not None:
        collected.others += _marks(site, site.lease_root, dry_run=dry_run)
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
) -> Collected:
    """Remove what runs that are over have left on a VM; for a run that begins, beside it.

    What of them still runs is left alone, and so are all other runs, whatever their age.

    Args:
        engine: of that machine; None if containers are none of the caller's business.
        root: the machine's folder for projects (`vm.root`).
        over: whether a run has ended.
        run_as: the account that commands run as there, beside the login.
        has_only_copy: whether the VM has changes of a run that were not brought back: they stay.

    Raises `Unavailable` if the machine can't be had.
    """
    site = Site.on_vm(machine, root, OnlyEnded(over, has_only_copy), engine, run_as=run_as)
    found = look(site)
    groups = [group for group in found.groups.values() if group.run.record is Record.ENDED]
    for group in groups:
        # The caller takes a stale lease over by itself; to end it meanwhile could come between.
        group.things = [thing for thing in group.things if not thing.is_stale]
    return _swept(site, found, groups, float("inf"), False, lambda _: None)


def _swept(
    site: Site,
    found: Inventory,
    groups: Iterable[RunThings],
    older_than: float,
    dry_run: bool,
    on_outcome: Callable[[Removal], object],
) -> Collected:
    collected = Collected(site, strange=found.strange, problems=found.problems)
    collected.others += [Other(words, Fate.STAYS) for words in found.unseen]
    # A clock there that is ahead makes nothing old: not what a run left that a person may still resume.
    now = min(found.now, time.time() + CLOCK_AHEAD)
    moment = Moment(now, older_than, site.cut_off_limit, found.engine_known)
    for group in sorted(groups, key=lambda group: group.run_id):
        verdicts = list(zip(group.things, decide(group.things, group.run, moment), strict=True))
        for outcome in _planned(verdicts) if dry_run else _removed(site, found, group, verdicts):
            collected.outcomes.append(outcome)
            on_outcome(outcome)
    _measure(site, collected)
    return collected


def _planned(verdicts: Sequence[tuple[Thing, Decision]]) -> Iterator[Removal]:
    for thing, verdict in verdicts:
        if verdict.goes:
            yield Removal(thing, verdict, Fate.WOULD_GO, thing.size)
        else:
            yield Removal(thing, verdict, Fate.STAYS)


def _removed(
    site: Site, found: Inventory, group: RunThings, verdicts: Sequence[tuple[Thing, Decision]]
) -> Iterator[Removal]:
    """Containers first: they have the folders mounted."""
    for thing, verdict in verdicts:
        if not verdict.goes:
            yield Removal(thing, verdict, Fate.STAYS)
    going = [(thing, verdict) for thing, verdict in verdicts if verdict.goes]
    if not going:
        return
    with site.records.unheld(group.run_id) as is_free:
        if not is_free or _has_lease(site, group.run_id):
            yield from (Removal(thing, verdict, Fate.REVIVED) for thing, verdict in going)
            return
        stuck = ""
        for thing, verdict in going:
            if thing.container:
                stuck = _remove_container(site, thing.container.id) or stuck
                yield Removal(thing, verdict, Fate.FAILED if stuck else Fate.GONE, 0 if stuck else thing.size, stuck)
        kinds = {ThingKind.WORKSPACE, ThingKind.COPY, ThingKind.STATE, ThingKind.PROCESSES}
        folders = [each for each in going if each[0].kind in kinds]
        if stuck:
            words = "a container of its run could not be removed"
            yield from (Removal(thing, verdict, Fate.FAILED, words=words) for thing, verdict in folders)
        elif folders:
            yield from _remove_folders(site, found, group, folders)
        for thing, verdict in going:
            if thing.kind is ThingKind.LEASE:
                yield _end_lease(site, thing, verdict)


def _has_lease(site: Site, run_id: str) -> bool:
    """Whether the run has the VM now, perhaps from another host; if that can't be known, it has."""
    if site.lease_root is None:
        return False
    try:
        lease = read_lease(site.machine, site.lease_root)
    except Unavailable:
        return True
    return lease is not None and lease.run_id == run_id and not lease.is_stale


def _remove_container(site: Site, container: str) -> str:
    """Why it could not be removed, or nothing."""
    assert site.engine is not None
    try:
        site.engine.remove(container)
    except UNREACHABLE as error:
        return str(error)
    return ""


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
    # Commands are ended only of a run that is over: they were left when its machine could not be reached.
    unless = "" if group.run.has_processes else "pcc_is_begun || "
    end = f"{unless}(\n{programs.end_run(place)}\n)" if found.sees_processes else ""
    if site.is_here and is_alive(place.state):
        if not group.run.has_processes:
            yield from (Removal(thing, verdict, Fate.REVIVED) for thing, verdict in folders)
            return
        end_supervisor(place.state)
    program = "\n".join([settings, text, end, *(f"({call})" for call in calls)])
    try:
        done = reconnecting(site.machine, lambda: site.machine.run(program, REMOVE_TIMEOUT))
    except Unavailable as error:
        yield from (Removal(thing, verdict, Fate.FAILED, words=str(error)) for thing, verdict in folders)
        return
    answers = done.stdout.decode(errors="replace").splitlines()
    answers += [f"left 0 {done.stderr.decode(errors='replace').strip()}"] * (len(folders) - len(answers))
    for (thing, verdict), answer in zip(folders, answers, strict=False):
        yield _answered(thing, verdict, answer)


def _answered(thing: Thing, verdict: Decision, answer: str) -> Removal:
    word, _, rest = answer.partition(" ")
    match word:
        case "gone":
            return Removal(thing, verdict, Fate.GONE, max(thing.size, (number_or_none(rest) or 0) * 1024))
        case "alive":
            return Removal(thing, verdict, Fate.REVIVED)
        case _:
            left, _, words = rest.partition(" ")
            kept = number_or_none(left)
            freed = 0 if kept is None else max(0, thing.size - kept * 1024)
            return Removal(thing, verdict, Fate.FAILED, freed, words)


def _marks(site: Site, root: str, *, dry_run: bool) -> Iterator[Other]:
    try:
        marks = wrong_marks(site.machine, root, remove=not dry_run)
    except Unavailable as error:
        yield Other(str(error), Fate.FAILED)
        return
    if marks.words:
        yield Other(marks.words, Fate.WOULD_GO if dry_run else Fate.GONE)


def _strays(site: Site, found: Inventory, holder: str, *, dry_run: bool) -> Iterator[Other]:
    """The account's processes, which only a living run has."""
    if site.run_as is None or site.lease_root is None:
        return
    try:
        there = as_account.processes(site.machine, site.run_as, site.lease_root, kill=False).before
        if not there:
            return
        alive = why_alive(site, found, holder)
        words = f"{there} of {site.run_as}: {alive or 'no run that they could be of is alive'}"
        if alive or dry_run:
            yield Other(words, Fate.STAYS if alive else Fate.WOULD_GO)
            return
        with _vm_held(site, site.lease_root, holder):
            left = as_account.processes(site.machine, site.run_as, site.lease_root, kill=True).after
        yield Other(f"{left} of {site.run_as} cannot be killed" if left else words, Fate.FAILED if left else Fate.GONE)
    except VmBusy as busy:
        yield Other(f"the processes of {site.run_as}: {busy.message}", Fate.STAYS)
    except Unavailable as error:
        yield Other(str(error), Fate.FAILED)


@contextlib.contextmanager
def _vm_held(site: Site, root: str, holder: str) -> Iterator[None]:
    """Within the block no run begins on the VM. Raises `VmBusy`, `Unavailable`."""
    if holder:
        yield
        return
    lease = Lease(site.machine, root, "pccpipe-gc", holder="pccpipe gc, for a moment")
    lease.acquire(0, lambda: True, lambda _: None)
    try:
        yield
    finally:
        lease.release()


def _end_lease(site: Site, thing: Thing, verdict: Decision) -> Removal:
    """Take it over and give it back at once: its files stay, as the order of those who come after hangs on them."""
    assert site.lease_root is not None
    lease = Lease(site.machine, site.lease_root, "pccpipe-gc", holder="pccpipe gc, for a moment")
    try:
        lease.acquire(0, lambda: True, lambda _: None)
    except Unavailable as error:
        return Removal(thing, verdict, Fate.FAILED, words=str(error))
    except PccpipeError:
        # Another run has taken it meanwhile.
        return Removal(thing, verdict, Fate.REVIVED)
    lease.release()
    return Removal(thing, verdict, Fate.GONE)


def _measure(site: Site, collected: Collected) -> None:
    """Ask how much is free now; without an answer nothing is said."""
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
    """Of each answer of df, as one line: what was asked for, the disk, and the kilobytes that are free on it."""
    for line in lines:
        # What was asked for; the heading has seven words ("Mounted on" are two), the answer six.
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
