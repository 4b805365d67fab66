"""`pccpipe gc`: removes what runs left on the VM, on the engine and on this machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pccpipe.cli.options import (
    host_key_option,
    print_lines,
    project_here,
    project_option,
    read_duration,
    runs_dir_option,
)

if TYPE_CHECKING:
    from pccpipe.spec.project_model import Project


@click.command()
@project_option
@runs_dir_option
@click.option(
    "--older-than",
    metavar="DURATION",
    default="24h",
    show_default=True,
    help="Clean up an unfinished run only if nothing of it changed for this long. 0s: at once.",
)
@click.option(
    "--discard",
    metavar="RUN_ID",
    multiple=True,
    help="Remove all of this run, also changes that exist nowhere else. May be repeated.",
)
@click.option("--records", is_flag=True, help="Also remove the records that the project's `keep:` does not keep.")
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and remove nothing.")
@host_key_option
def gc(
    *,
    project: Path | None,
    runs_dir: Path,
    older_than: str,
    discard: Sequence[str],
    records: bool,
    dry_run: bool,
    accept_new_host_key: bool,
) -> None:
    """Remove what runs left behind: containers, copies of the code, and files of commands.

    Removed at once: all of a run that ended, and a container whose deadline passed. Removed after --older-than: things
    of an unfinished run that can still be resumed. Kept unless --discard names the run: things of a stopped run, a copy
    on this machine with changes that no diff has, and a copy on the VM with changes that were not brought back. Things
    of a live run are never removed.

    On a VM, gc also removes whatever in the lease's folder is not a lease. Where the project has run_as, it ends each
    process of that account while no run is alive. It reports an image that provision did not build, start-up files
    that changed since provision, and the login's processes of unknown origin.

    With --records it then removes the records of the project's ended runs beyond `keep:` in the project file. A record
    with the only copy of an agent's work stays, unless `keep: only_copies:` allows its removal.

    Exit status: 0, 1 if something could not be removed, 3 if the VM cannot be reached.
    """
    from pccpipe import api
    from pccpipe.views.gc import GcView

    older = read_duration(older_than, "--older-than")
    of_project = project_here(project)
    if records:
        from pccpipe.gc.prune import refuse_unbounded

        refuse_unbounded(of_project)
    view = GcView(sys.stdout, of_project.title, dry_run=dry_run)
    report = api.gc(
        project=of_project,
        runs_dir=runs_dir,
        older_than=older,
        discard=discard,
        dry_run=dry_run,
        accept_new_host_key=accept_new_host_key,
        on_removal=view.removal,
        on_site=view.site,
    )
    print_lines(f"nothing of run {run_id} is there to discard" for run_id in report.unknown)
    has_failed = report.has_failed
    if records:
        has_failed = _prune(of_project, runs_dir, dry_run=dry_run) or has_failed
    sys.exit(1 if has_failed else 0)


def _prune(project: Project, runs_dir: Path, *, dry_run: bool) -> bool:
    """Remove the records beyond `keep:`, and show them; return whether a removal failed."""
    from pccpipe.gc.prune import prune_records
    from pccpipe.gc.report import RemovalStatus
    from pccpipe.views.removed import pruned_text

    print(f"records in {runs_dir}:")
    pruned = prune_records(
        project, runs_dir.absolute(), dry_run=dry_run, on_record=lambda each: print(pruned_text(each))
    )
    if not pruned:
        print("  none is beyond keep:")
    return any(each.status is RemovalStatus.FAILED for each in pruned)
