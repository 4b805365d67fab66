"""`pccpipe gc`: removes what runs left on the VM, on the engine and here."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

import click

from pccpipe.cli.options import project_here, project_option, runs_dir_option, tell
from pccpipe.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pccpipe.gc.decide import Decision
    from pccpipe.gc.look import Site
    from pccpipe.gc.sweep import Collected, Fate, Removal
    from pccpipe.spec.model import Project
    from pccpipe.ssh.connection import Connection


@click.command()
@project_option
@runs_dir_option
@click.option(
    "--older-than",
    metavar="DURATION",
    default="24h",
    show_default=True,
    help="How long a run must have been still that has not ended, as far as is known here. 0s: however short.",
)
@click.option(
    "--discard",
    metavar="RUN_ID",
    multiple=True,
    help="Remove all of this run, with changes that are nowhere else. May be given more than once.",
)
@click.option("--dry-run", is_flag=True, help="Say what would go, and remove nothing.")
@click.option("--accept-new-host-key", is_flag=True, help="Take the host key of a VM that known_hosts does not know.")
def gc(
    *,
    project: Path | None,
    runs_dir: Path,
    older_than: str,
    discard: Sequence[str],
    dry_run: bool,
    accept_new_host_key: bool,
) -> None:
    """Remove what runs left behind: containers, copies of the code, and what is kept of commands.

    All of a run that is over goes at once, and so does a container whose deadline has passed. Of a run that may still
    be resumed, things go when nothing of it has changed for --older-than. What a live run has is never touched, what a
    stopped one keeps neither, nor are copies here that hold changes which no diff has, nor those on the VM that hold
    changes which were not brought back. --discard removes these of one run, which it names.

    On a VM also goes what lies in the lease's folder and is no lease, and, where the project has run_as, each process
    of that account while no run is alive. An image that provision did not build, start-up files that changed since,
    and processes of the login that nothing known began are named.

    Exit status: 0, 1 if something could not be removed, 3 if the VM cannot be reached.
    """
    from msgspec.structs import replace

    from pccpipe.gc.sweep import collect
    from pccpipe.record.fence import refuse_links

    still = _duration(older_than)
    refuse_links(Path.cwd(), runs_dir.absolute())
    failed = False
    connection = None
    try:
        of_project = project_here(project)
        heading = [f"project {of_project.id} ({of_project.path or 'no project file'})"]
        sites, connection = _sites(of_project, runs_dir.absolute(), accept_new_host_key)
        unknown = set(discard)
        for site in (replace(site, discarded=frozenset(discard)) for site in sites):
            lines = _Teller(site, heading)
            collected = collect(site, older_than=still, dry_run=dry_run, on_outcome=lines.outcome)
            lines.end(collected, dry_run=dry_run)
            failed = failed or collected.has_failed
            unknown -= {outcome.thing.run_id for outcome in collected.outcomes}
        if unknown:
            tell([f"nothing of run {run_id} is there to discard" for run_id in sorted(unknown)])
            failed = True
    finally:
        if connection:
            connection.close()
    sys.exit(1 if failed else 0)


def _duration(text: str) -> float:
    from pccpipe.spec import units

    try:
        return units.seconds(text)
    except ValueError as error:
        raise UsageError(f"--older-than: {error}") from error


def _sites(project: Project, runs_dir: Path, accept_new: bool) -> tuple[Sequence[Site], Connection | None]:
    """Where the project's runs leave things: on its VM, if it has one, and here."""
    from pccpipe.docker_api.engine import DockerEngine
    from pccpipe.gc.look import Site
    from pccpipe.gc.records import RunsDir
    from pccpipe.machine.local import LocalMachine
    from pccpipe.outcome import IsolationMode
    from pccpipe.record.fence import system_folder

    here, system = LocalMachine(), str(system_folder(runs_dir))
    runs = os.path.relpath(runs_dir, system)
    if project.isolation_mode is IsolationMode.VM and project.vm:
        from pccpipe.ssh.connection import Connection

        connection = Connection(project.vm, accept_new_host_key=accept_new)
        # A run of that name that was not this project's has left its things elsewhere.
        of_project = RunsDir(
            runs_dir, lambda began: began.project == project.id and began.isolation_mode is IsolationMode.VM
        )
        engine = DockerEngine(connection)
        on_vm = Site.on_vm(
            connection, project.vm.root, of_project, engine, project.lost_after + 60.0, project.vm.run_as
        )
        return [on_vm, Site(here, system, RunsDir(runs_dir), runs=runs)], connection
    needs_engine = project.isolation_mode is IsolationMode.CONTAINER
    # A project without containers does not care what DOCKER_HOST says.
    here_too = DockerEngine(here) if needs_engine or not here.facts.engine_error else None
    return [Site(here, system, RunsDir(runs_dir), here_too, needs_engine, runs=runs)], None


class _Teller:
    """Prints a line for each thing of a site, and the sum; before the first of several sites the `heading`."""

    def __init__(self, site: Site, heading: list[str]) -> None:
        self._site = site
        self._heading = heading
        self._has_begun = False

    def outcome(self, outcome: Removal) -> None:
        from pccpipe.gc.decide import ThingKind
        from pccpipe.words import size

        thing = outcome.thing
        name = f"container {thing.name}" if thing.kind is ThingKind.CONTAINER else thing.name
        counted = "" if thing.kind is ThingKind.LEASE else f", {size(thing.size)}"
        self._tell(_word(outcome.fate), f"{name} of run {thing.run_id}{counted}: {_because(outcome)}")

    def end(self, collected: Collected, *, dry_run: bool) -> None:
        """What else there was, and the sum. Of a home that has nothing, nothing is said beside a VM."""
        from pccpipe.words import size

        for other in collected.others:
            self._tell(_word(other.fate), other.words)
        for name in collected.strange:
            self._tell("left", f"{name}: it is none of pccpipe's")
        for problem in collected.problems:
            self._tell("problem", problem)
        for words in collected.wrong:
            self._tell("WRONG", words)
        if not self._has_begun:
            self._begin(f"{self._where}: nothing of any run is there")
            return
        free = []
        if collected.free is not None:
            free.append(f"{size(collected.free)} free there now")
        if collected.engine_free is not None:
            free.append(f"{size(collected.engine_free)} on the engine's disk")
        sum_ = f"{'would free' if dry_run else 'freed'} {size(collected.freed)}, as du and the engine count it"
        tell([f"  {'; '.join([sum_, *free])}"])

    @property
    def _where(self) -> str:
        return f"{self._site.system} on {self._site.machine.host}"

    def _begin(self, line: str) -> None:
        tell([*self._heading, line])
        self._heading.clear()

    def _tell(self, word: str, words: str) -> None:
        from pccpipe.views.text import harmless_line

        if not self._has_begun:
            self._has_begun = True
            self._begin(f"{self._where}:")
        tell([f"  {word:<9} {harmless_line(words)}"])


def _word(fate: Fate) -> str:
    from pccpipe.gc.sweep import Fate

    match fate:
        case Fate.STAYS | Fate.REVIVED:
            return "stays"
        case Fate.WOULD_GO:
            return "would go"
        case Fate.GONE:
            return "removed"
        case Fate.FAILED:
            return "FAILED"
        case _:
            assert_never(fate)


def _because(outcome: Removal) -> str:
    from pccpipe.gc.sweep import Fate

    if outcome.fate is Fate.REVIVED:
        return "the run has just gone on"
    why = _why(outcome.verdict, outcome.thing.run_id)
    return f"{why}; it could not be removed: {outcome.words}" if outcome.fate is Fate.FAILED else why


def _why(verdict: Decision, run_id: str) -> str:
    from pccpipe.gc.decide import Why
    from pccpipe.paste import operands
    from pccpipe.words import duration

    time, resume = duration(verdict.seconds), f"pccpipe resume {operands(run_id)}"
    match verdict.why:
        case Why.LEASE_IS_FRESH:
            return f"the run has the VM, its last sign of life was {time} ago"
        case Why.HELD:
            return "a process here runs it"
        case Why.PROCESS_RUNS:
            return "a command of it runs"
        case Why.CONTAINER_RUNS:
            return f"a container of it runs, for {time} more at most" if time else "a container of it runs"
        case Why.OVER:
            return "the run is over"
        case Why.STRAY:
            return "they claim to be of the run, of which no command is there"
        case Why.PAST_DEADLINE:
            return f"its deadline passed {time} ago"
        case Why.STALE_LEASE:
            return f"the last sign of life was {time} ago" if time else "it is from before a reboot"
        case Why.CUT_OFF:
            return f"the run may only be cut off, its last sign of life was {time} ago"
        case Why.UNTOUCHED:
            return f"nothing of the run has changed for {time}" if time else "nobody runs it"
        case Why.TOUCHED:
            when = f"{time} ago" if time else "at some time"
            return f"no record here says that the run has ended, and it changed {when}"
        case Why.WAITING:
            return f"the run waits for a person's answers (pccpipe answer {operands(run_id)})"
        case Why.STOPPED:
            return f"the run is stopped and can be resumed ({resume}); to give it up: pccpipe cancel {operands(run_id)}"
        case Why.INTERRUPTED:
            when = f" {time} ago" if time else ""
            return f"the run was interrupted{when} and can be resumed ({resume})"
        case Why.NOT_ENDED:
            return "no record here says how the run ended, and changes of its agents may be in it"
        case Why.UNTOLD_CHANGES:
            return "files that the run changed exist only there: no diff has all of them"
        case Why.ONLY_COPY:
            discard = f"pccpipe gc --discard {operands(run_id)}"
            return f"it holds changes that were not brought back; to remove it all the same: {discard}"
        case Why.DISCARDED:
            return "--discard names its run"
        case Why.ENGINE_UNKNOWN:
            return "a container of it may run, which could not be asked"
        case Why.NOT_OURS:
            return "it is none of pccpipe's"
        case _:
            assert_never(verdict.why)
