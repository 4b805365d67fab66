"""Cleans up all sites of one project: its VM, if it has one, and this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path

from msgspec.structs import replace

from pccpipe.docker_api.engine import DockerEngine
from pccpipe.gc.look import Site
from pccpipe.gc.records import RunsDir
from pccpipe.gc.report import GcReport, Removal, SiteReport
from pccpipe.gc.sweep import DAY, collect
from pccpipe.layout import system_folder
from pccpipe.machine.base import Machine
from pccpipe.machine.local import LocalMachine
from pccpipe.outcome import IsolationMode
from pccpipe.record.fence import refuse_links
from pccpipe.spec.project_model import Project
from pccpipe.ssh.connection import Connection


def vm_site(machine: Machine, engine: DockerEngine, project: Project, runs_dir: Path) -> Site:
    """Return the project's VM as a site; `machine` is the VM, `engine` its engine."""
    assert project.vm is not None
    # A run of the same name in another project left its things elsewhere.
    records = RunsDir(runs_dir, lambda began: began.project == project.id and began.isolation_mode is IsolationMode.VM)
    return Site.on_vm(machine, project.vm.root, records, engine, project.lost_after + 60.0, project.vm.run_as)


def local_site(machine: Machine, project: Project, runs_dir: Path) -> Site:
    """Return this machine as a site, with its engine where the project's containers run here."""
    system = str(system_folder(runs_dir))
    runs = os.path.relpath(runs_dir, system)
    has_vm = project.isolation_mode is IsolationMode.VM
    needs_engine = project.isolation_mode is IsolationMode.CONTAINER
    # DOCKER_HOST may name an engine elsewhere; a project without containers ignores that.
    has_engine = needs_engine or not (has_vm or machine.facts.engine_error)
    engine = DockerEngine(machine) if has_engine else None
    return Site(machine, system, RunsDir(runs_dir), engine, needs_engine, runs=runs)


def collect_project(
    project: Project,
    runs_dir: Path,
    *,
    older_than: float = DAY,
    discard: Collection[str] = (),
    dry_run: bool = False,
    accept_new_host_key: bool = False,
    on_removal: Callable[[Site, Removal], object] = lambda _site, _removal: None,
    on_site: Callable[[SiteReport], object] = lambda _: None,
) -> GcReport:
    """Remove what no live run needs, at each site. Arguments as for `api.gc`; raises as it does."""
    refuse_links(Path.cwd(), runs_dir)
    connection = None
    done: list[SiteReport] = []
    try:
        sites = [local_site(LocalMachine(), project, runs_dir)]
        if project.isolation_mode is IsolationMode.VM and project.vm:
            connection = Connection(project.vm, accept_new_host_key=accept_new_host_key)
            sites.insert(0, vm_site(connection, DockerEngine(connection), project, runs_dir))
        for site in (replace(site, discarded=frozenset(discard)) for site in sites):
            done.append(
                collect(
                    site,
                    older_than=older_than,
                    dry_run=dry_run,
                    on_removal=lambda removal, site=site: on_removal(site, removal),  # type: ignore[misc]
                )
            )
            on_site(done[-1])
    finally:
        if connection:
            connection.close()
    named = {removal.thing.run_id for collected in done for removal in collected.removals}
    return GcReport(tuple(done), tuple(sorted(set(discard) - named)))
