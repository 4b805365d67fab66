"""Shows what `gc` removes and what it keeps, a line for each thing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO, assert_never

from pccpipe.gc.decide import Decision, ThingKind, Why
from pccpipe.gc.report import Removal, RemovalStatus, SiteReport
from pccpipe.paste import operands
from pccpipe.views.text import harmless_line
from pccpipe.words import duration, size

if TYPE_CHECKING:
    from pccpipe.gc.look import Site


class GcView:
    """Prints a line for each thing of a site at once, and the site's sum; before the first site the heading."""

    def __init__(self, stream: TextIO, heading: str, *, dry_run: bool) -> None:
        self._stream = stream
        self._heading = heading
        self._dry_run = dry_run
        self._site: Site | None = None
        """The site whose lines are being printed."""

    def removal(self, site: Site, removal: Removal) -> None:
        """Show one thing of a site."""
        thing = removal.thing
        of_engine = thing.kind in {ThingKind.CONTAINER, ThingKind.NETWORK}
        name = f"{thing.kind.value} {thing.name}" if of_engine else thing.name
        counted = "" if thing.kind in {ThingKind.LEASE, ThingKind.NETWORK} else f", {size(thing.size)}"
        self._line(site, _WORDS[removal.status], f"{name} of run {thing.run_id}{counted}: {_because(removal)}")

    def site(self, collected: SiteReport) -> None:
        """Show what else a site has, and its sum."""
        for word, words in _others(collected):
            self._line(collected.site, word, words)
        if self._site is not collected.site:
            self._print(f"{_where(collected.site)}: nothing of any run is there")
            return
        parts = [f"{'would free' if self._dry_run else 'freed'} {size(collected.freed)}, as du and the engine count it"]
        if collected.free is not None:
            parts.append(f"{size(collected.free)} free there now")
        if collected.engine_free is not None:
            parts.append(f"{size(collected.engine_free)} on the engine's disk")
        self._print(f"  {'; '.join(parts)}")

    def _line(self, site: Site, word: str, words: str) -> None:
        if self._site is not site:
            self._site = site
            self._print(f"{_where(site)}:")
        self._print(f"  {word:<9} {harmless_line(words)}")

    def _print(self, line: str) -> None:
        if self._heading:
            print(self._heading, file=self._stream)
            self._heading = ""
        print(line, file=self._stream)


_WORDS = {
    RemovalStatus.KEPT: "kept",
    RemovalStatus.RESUMED: "kept",
    RemovalStatus.PLANNED: "would go",
    RemovalStatus.REMOVED: "removed",
    RemovalStatus.FAILED: "FAILED",
}


def _where(site: Site) -> str:
    return f"{site.system} on {site.machine.host}"


def _others(collected: SiteReport) -> Iterator[tuple[str, str]]:
    yield from ((_WORDS[other.status], other.words) for other in collected.others)
    yield from (("left", f"{name}: not created by pccpipe") for name in collected.foreign)
    yield from (("problem", problem) for problem in collected.problems)
    yield from (("WRONG", words) for words in collected.wrong)


def _because(removal: Removal) -> str:
    if removal.status is RemovalStatus.RESUMED:
        return "the run has just continued"
    why = _why(removal.decision, removal.thing.run_id)
    return f"{why}; it could not be removed: {removal.words}" if removal.status is RemovalStatus.FAILED else why


def _why(verdict: Decision, run_id: str) -> str:
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
            return "they claim to belong to the run, but no command is there"
        case Why.PAST_DEADLINE:
            return f"its deadline passed {time} ago"
        case Why.STALE_LEASE:
            return f"its last sign of life was {time} ago" if time else "it is from before a reboot"
        case Why.CUT_OFF:
            return f"the run may have lost its connection only, its last sign of life was {time} ago"
        case Why.UNTOUCHED:
            return f"nothing of the run has changed for {time}" if time else "no process runs it"
        case Why.TOUCHED:
            when = f"{time} ago" if time else "at some time"
            return f"no record on this machine says that the run has ended, and it changed {when}"
        case Why.WAITING:
            return f"the run waits for a person's answers, or for its model (pccpipe show {operands(run_id)})"
        case Why.STOPPED:
            return f"the run is stopped and can be resumed ({resume}), or ended (pccpipe cancel {operands(run_id)})"
        case Why.INTERRUPTED:
            when = f" {time} ago" if time else ""
            return f"the run was interrupted{when} and can be resumed ({resume})"
        case Why.NOT_ENDED:
            return "no record on this machine says how the run ended, and it may hold changes by agents"
        case Why.UNDIFFED_CHANGES:
            return "files that the run changed exist only there: no diff has all of them"
        case Why.ONLY_COPY:
            discard = f"pccpipe gc --discard {operands(run_id)}"
            return f"it holds changes that were not brought back; to remove it anyway: {discard}"
        case Why.DISCARDED:
            return "--discard names its run"
        case Why.ENGINE_UNKNOWN:
            return "a container of it may run: the engine could not be asked"
        case Why.NOT_OURS:
            return "not created by pccpipe"
        case _:
            assert_never(verdict.why)
