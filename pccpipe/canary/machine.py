"""Searches a machine's processes and files, with a script that runs there."""

from __future__ import annotations

import math
import re
import shlex
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from pccpipe.canary.ledger import Ledger, Spot
from pccpipe.canary.places import Classifier
from pccpipe.canary.value import Canary
from pccpipe.machine.answers import number
from pccpipe.machine.base import Done, Machine
from pccpipe.machine.retry import UNREACHABLE

TIMEOUT = 150.0
"""Seconds for one search, which ends itself after 90."""
TRIES = 5
"""Searches of processes, until no process ends during the search."""
_DENIED = re.compile(r"^\w+: (?:cannot \w+ )?'?(.+?)'?: Permission denied$", re.MULTILINE)


class Looker:
    """Search one machine, as root if its user may become root.

    Args:
        where: the machine's name in the ledger.
        may_sudo: whether to try `sudo` without a password.
    """

    def __init__(
        self, machine: Machine, where: str, canary: Canary, ledger: Ledger, run_id: str, *, may_sudo: bool
    ) -> None:
        self.machine = machine
        self.where = where
        self._canary = canary
        self._ledger = ledger
        self._run_id = run_id
        self._began = time.monotonic()
        self._may_sudo = may_sudo
        self._prefix: str | None = None

    def attempt(self, spots: Sequence[Spot], look: Callable[[], object]) -> None:
        """Search; if the machine is unavailable, record that for these places."""
        try:
            look()
        except UNREACHABLE as error:
            for spot in spots:
                self._ledger.unread(self.where, spot, str(error))

    def processes(self, *, own_is_expected: bool) -> None:
        """Search the arguments and the environment of all processes.

        Args:
            own_is_expected: whether a running step has the secret in its environment.
        """
        spots = (Spot.ARGUMENTS, Spot.ENVIRONMENT, Spot.OWN_ENVIRONMENT)
        self.attempt(spots, lambda: self._processes(own_is_expected))

    def files(self, call: str, classify: Classifier, *, expected: Collection[Spot] = ()) -> None:
        """Search files that changed since the run began; `call` names a function of look.sh.

        Args:
            expected: the places where the secret may be now.
        """
        self.attempt(classify.spots, lambda: self._files(call, classify, expected))

    def _processes(self, own_is_expected: bool) -> None:
        ledger, where = self._ledger, self.where
        for _ in range(TRIES):
            lines = list(_lines(self._run("pcc_processes")))
            if not any(line.startswith("gone ") for line in lines):
                break
        for line in lines:
            word, _, rest = line.partition(" ")
            pid, _, name = rest.partition(" ")
            process = f"process {pid} ({name or 'ended'})"
            match word:
                case "processes":
                    host = self.machine.host
                    self._count(number(host, "count of processes", pid), number(host, "count of processes", name))
                case "listed":
                    self._count_listed(number(self.machine.host, "count of processes", rest))
                case "hidden":
                    ledger.unread(where, Spot.ARGUMENTS, "/proc hides other users' processes (hidepid)")
                case "arguments":
                    ledger.found(where, Spot.ARGUMENTS, process)
                case "gone":
                    ledger.unread(where, Spot.ENVIRONMENT, "a process ended before its owner was known")
                case "own" if own_is_expected:
                    ledger.expected(where, Spot.OWN_ENVIRONMENT, f"process {name or 'that has ended'}")
                case "own":
                    ledger.found(where, Spot.OWN_ENVIRONMENT, process)
                case _:
                    ledger.found(where, Spot.ENVIRONMENT, process)

    def _count(self, readable: int, denied: int) -> None:
        ledger, where = self._ledger, self.where
        if not readable + denied:
            for spot in (Spot.ARGUMENTS, Spot.ENVIRONMENT, Spot.OWN_ENVIRONMENT):
                ledger.unread(where, spot, "/proc shows no process")
            return
        ledger.looked(where, Spot.ARGUMENTS, readable + denied)
        for spot in (Spot.ENVIRONMENT, Spot.OWN_ENVIRONMENT):
            ledger.looked(where, spot, readable)
        if denied:
            user = self.machine.facts.user
            ledger.unread(where, Spot.ENVIRONMENT, f"{user} may not read the environment of others' processes")

    def _count_listed(self, count: int) -> None:
        """Count the processes of a machine without /proc: `ps` lists arguments, and nothing lists environments."""
        ledger, where = self._ledger, self.where
        if count:
            ledger.looked(where, Spot.ARGUMENTS, count)
        else:
            ledger.unread(where, Spot.ARGUMENTS, "ps lists no process, and there is no /proc")
        for spot in (Spot.ENVIRONMENT, Spot.OWN_ENVIRONMENT):
            ledger.unread(where, spot, f"{self.machine.facts.system} shows no program the environment of another")

    def _files(self, call: str, classify: Classifier, expected: Collection[Spot]) -> None:
        ledger, where, spots = self._ledger, self.where, classify.spots
        done = self._run(call)
        seen: dict[Spot, dict[str, int]] = {spot: {} for spot in spots}
        ended = False
        for line in _lines(done):
            word, _, rest = line.partition(" ")
            match word:
                case "file":
                    size, _, path = rest.partition(" ")
                    if spot := classify(path):
                        seen[spot][path] = number(self.machine.host, "size of a file", size)
                        self._check_name(spot, path)
                case "found":
                    if spot := classify(rest):
                        (ledger.expected if spot in expected else ledger.found)(where, spot, _shown(rest))
                case "name":
                    # stat quotes it: 'name', or 'name' -> 'target'.
                    if spot := classify(rest[1:].partition("'")[0]):
                        self._check_name(spot, rest)
                case "big":
                    if spot := classify(rest):
                        ledger.unread(where, spot, f"{_shown(rest)} has more than 1 GiB")
                case "odd":
                    ledger.unread(where, spots[-1], "the name of a file has a newline in it")
                case "unseen":
                    for spot in spots:
                        ledger.unread(where, spot, "this machine does not see the container's processes")
                case "failed":
                    for spot in spots:
                        ledger.unread(where, spot, f"the search failed: {rest}")
                case "cut":
                    for spot in spots:
                        ledger.unread(where, spot, "the search was ended after 90 s")
                case "end":
                    ended = True
                case _:
                    raise ConnectionResetError(f"the search on {where} said {line!r}")
        for spot, files in seen.items():
            ledger.looked(where, spot, len(files), sum(files.values()))
        self._record_unread(done, classify, ended)

    def _check_name(self, spot: Spot, name: str) -> None:
        if self._canary.is_in(name.encode(errors="surrogateescape")):
            self._ledger.found(self.where, spot, f"in the name {_shown(name)}")

    def _record_unread(self, done: Done, classify: Classifier, ended: bool) -> None:
        denied: dict[Spot, list[str]] = {}
        for path in _DENIED.findall(done.stderr.decode(errors="surrogateescape")):
            if spot := classify(path):
                denied.setdefault(spot, []).append(path)
        for spot, paths in denied.items():
            more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
            self._ledger.unread(self.where, spot, f"{self.machine.facts.user} may not read {_shown(paths[0])}{more}")
        if not ended or done.code:
            for spot in classify.spots:
                words = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
                self._ledger.unread(self.where, spot, f"the search did not end: {words or done.code}")

    def _run(self, call: str) -> Done:
        minutes = math.ceil((time.monotonic() - self._began) / 60) + 1
        settings = [
            f"pcc_patterns={shlex.quote(self._canary.patterns)}",
            f"pcc_run={shlex.quote(self._run_id)} pcc_minutes={minutes}",
        ]
        program = "\n".join([*settings, Path(__file__).with_name("look.sh").read_text(), call])
        if self._prefix is None:
            self._prefix = self._way_to_root()
        if self._prefix:
            # printf is built into the shell, so no argument list has the program.
            quoted = shlex.quote(f"(\n{program}\n) </dev/null")
            program = f"pcc_program={quoted}\nprintf '%s\\n' \"$pcc_program\" | {self._prefix}"
        return self.machine.run(program, TIMEOUT)

    def _way_to_root(self) -> str:
        if not self._may_sudo or self.machine.facts.uid == 0:
            return ""
        return "sudo -n sh" if self.machine.run("sudo -n true").code == 0 else ""


def _shown(path: str) -> str:
    """Return the path; of a container's file, the path inside."""
    return re.sub(r"/proc/[0-9]+/root(?=/)", "", path)


def _lines(done: Done) -> Iterator[str]:
    for line in done.stdout.split(b"\n"):
        if line:
            yield line.decode(errors="surrogateescape")
