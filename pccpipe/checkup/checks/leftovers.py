"""What earlier runs left on the machine, and which run has the VM now."""

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
    """What nobody needs any more."""
    found = collected(context)
    going = [outcome for outcome in found.removals if outcome.status is RemovalStatus.PLANNED]
    # A lease that nobody holds is in nobody's way. Processes are another check's.
    going = [outcome for outcome in going if outcome.thing.kind not in {ThingKind.LEASE, ThingKind.PROCESSES}]
    if not going:
        return ok("nothing that could go")
    containers = sum(outcome.thing.kind is ThingKind.CONTAINER for outcome in going)
    folders = len(going) - containers
    runs = len({outcome.thing.run_id for outcome in going})
    counts = [f"{containers} container{'' if containers == 1 else 's'}"] if containers else []
    counts += [f"{folders} folder{'' if folders == 1 else 's'}"] if folders else []
    words = f"{' and '.join(counts)} of {runs} run{'' if runs == 1 else 's'} that nobody needs any more"
    words += f", {found.freed / 1e6:.0f} MB"
    return warning(words, Fix(context.pccpipe("gc"), FixPlace.HERE, is_safe=True, do=collect_leftovers))


def lease(context: CheckContext) -> Finding:
    """Which run has the VM, and whether it gives signs of life."""
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
        return ok(f"left behind by {who}, {since}: the next run takes the VM over")
    cancel = Fix(f"pccpipe cancel {held.run_id}", FixPlace.HERE)
    return warning(f"{who} has the VM and is alive, {since}: another run has to wait", cancel)


def collected(context: CheckContext) -> SiteReport:
    """Give what `pccpipe gc` would do."""
    # Processes of the account that the doctor itself began are no leftovers.
    let_probe_end(context)
    return context.once("collected", lambda: collect(_site(context), dry_run=True, holder=context.run_id))


def collect_leftovers(context: CheckContext) -> str:
    """What `pccpipe gc` does on that machine."""
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
