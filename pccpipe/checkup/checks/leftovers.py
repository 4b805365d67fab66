"""Checks what earlier runs left on the machine, and which run holds the VM."""

from __future__ import annotations

from pccpipe.checkup.check import Check, Finding, Fix, FixPlace, ok, warning
from pccpipe.checkup.checks.account import let_probe_end
from pccpipe.checkup.context import HOLDER, CheckContext
from pccpipe.gc.decide import ThingKind
from pccpipe.gc.look import Site
from pccpipe.gc.report import RemovalStatus, SiteReport
from pccpipe.gc.sites import local_site, vm_site
from pccpipe.gc.sweep import collect
from pccpipe.machine.lease import read_lease


def leftovers(context: CheckContext) -> Finding:
    """Check for things of runs that ended."""
    found = collected(context)
    going = [outcome for outcome in found.removals if outcome.status is RemovalStatus.PLANNED]
    # A stale lease stops no run, and a network goes with its containers. Another check reports processes.
    others = {ThingKind.LEASE, ThingKind.NETWORK, ThingKind.PROCESSES}
    going = [outcome for outcome in going if outcome.thing.kind not in others]
    if not going:
        return ok("nothing to clean up")
    containers = sum(outcome.thing.kind is ThingKind.CONTAINER for outcome in going)
    folders = len(going) - containers
    runs = len({outcome.thing.run_id for outcome in going})
    counts = [f"{containers} container{'' if containers == 1 else 's'}"] if containers else []
    counts += [f"{folders} folder{'' if folders == 1 else 's'}"] if folders else []
    words = f"{' and '.join(counts)} of {runs} run{'' if runs == 1 else 's'} that no run needs any more"
    words += f", {found.freed / 1e6:.0f} MB"
    return warning(words, gc_fix(context))


def gc_fix(context: CheckContext) -> Fix:
    """Return the fix that `pccpipe gc` makes."""
    return Fix(context.pccpipe("gc"), FixPlace.HERE, is_safe=True, do=_collect_leftovers)


def lease(context: CheckContext) -> Finding:
    """Say which run holds the VM, and whether it is alive."""
    held = read_lease(context.machine, context.root)
    if held is None:
        return ok("free")
    who = f"run {held.run_id} ({held.holder})"
    since = (
        f"its last sign of life was {held.last_beat:.0f} s ago"
        if held.last_beat is not None
        else "from before a reboot"
    )
    if held.is_stale:
        return ok(f"left behind by {who}, {since}: the next run takes over the VM")
    cancel = Fix(f"pccpipe cancel {held.run_id}", FixPlace.HERE)
    return warning(f"{who} holds the VM and is alive, {since}: other runs have to wait", cancel)


def collected(context: CheckContext) -> SiteReport:
    """Return what `pccpipe gc` would do."""
    # The doctor's own processes of the account must not count as leftovers.
    let_probe_end(context)
    return context.once("collected", lambda: collect(_site(context), dry_run=True, holder=context.run_id))


def _collect_leftovers(context: CheckContext) -> str:
    """Do what `pccpipe gc` does on that machine, and say so."""
    done = collect(_site(context), holder=HOLDER)
    gone = sum(outcome.status is RemovalStatus.REMOVED for outcome in done.removals)
    others = [f"removed {other.words}" for other in done.others if other.status is RemovalStatus.REMOVED]
    failed = [outcome.words for outcome in done.removals if outcome.status is RemovalStatus.FAILED]
    failed += [other.words for other in done.others if other.status is RemovalStatus.FAILED]
    return "; ".join([f"removed {_things(gone)}, {done.freed / 1e6:.0f} MB", *others, *failed])


def _things(count: int) -> str:
    return f"{count} thing{'' if count == 1 else 's'} of runs"


def _site(context: CheckContext) -> Site:
    project, runs_dir = context.options.project, context.options.runs_dir
    if context.vm:
        return vm_site(context.machine, context.engine, project, runs_dir)
    return local_site(context.machine, project, runs_dir)


LEFTOVERS = Check("leftovers", leftovers, ("folder",), limit=60)
LEASE = Check("lease", lease, ("folder",))
