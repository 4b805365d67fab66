"""Fuzz the answers of a hostile VM and its engine to the doctor, to gc, to an upload and to the build of an image."""

from __future__ import annotations

import functools
import stat
from pathlib import Path

from pccpipe.checkup.checks import account, engine, leftovers, login, network, strays, system
from pccpipe.checkup.context import CheckContext, CheckupOptions
from pccpipe.checkup.doctor import _found
from pccpipe.docker_api.engine import DockerEngine
from pccpipe.gc.changed import changes
from pccpipe.gc.look import Site
from pccpipe.gc.records import OnlyEnded
from pccpipe.gc.sweep import collect
from pccpipe.outcome import IsolationMode
from pccpipe.secrets.mask import Masker
from pccpipe.spec.project_model import Project, Vm
from pccpipe.workspace import intake, tar
from pccpipe.workspace.choice import Choice
from pccpipe.workspace.entry import Entry
from pccpipe.workspace.exclude import Excluded
from pccpipe.workspace.fetch import fetch_paths, fetch_tree
from tests.fuzz.sides import NEXT, FuzzedMachine
from tests.fuzz.target import SECRET, Target, each, folder, stays_within

CHECKS = [
    *login.CHECKS,
    *system.CHECKS,
    *network.CHECKS,
    *engine.CHECKS,
    *strays.ENGINE,
    leftovers.LEFTOVERS,
    leftovers.LEASE,
    *account.CHECKS,
    *strays.STRAYS,
]
_PING = b"HTTP/1.1 200 OK\r\nApi-Version: 1.47\r\n\r\n" + NEXT


def _context(data: bytes) -> CheckContext:
    """Make the context of checks on a VM whose every answer is the fuzzer's."""
    vm = Vm("vm.example", "user", run_as="pccrun")
    project = Project("p", IsolationMode.VM, vm)
    context = CheckContext(CheckupOptions(project, folder() / ".system/runs", "http://127.0.0.1:9/v1", ""))
    machine = FuzzedMachine(data)
    context.machine = machine
    context.vm = vm
    context.engine = DockerEngine(machine, "/sock")
    return context


def _doctor(data: bytes) -> None:
    check = CHECKS[data[0] % len(CHECKS)] if data else CHECKS[0]
    _found(check, _context(data[1:]))


def _gc_decides(data: bytes) -> None:
    machine = FuzzedMachine(data)
    site = Site.on_vm(machine, "/home/user", OnlyEnded(lambda name: name > "m"), DockerEngine(machine, "/sock"))
    done = collect(site, dry_run=True)
    for outcome in done.removals:
        assert outcome.freed >= 0
        assert outcome.thing.run_id not in {"", ".", ".."}
        assert "/" not in outcome.thing.run_id


def _gc_changes(data: bytes) -> None:
    machine = FuzzedMachine(data)
    each(
        lambda: changes(machine, "/home/user", None),
        lambda: changes(machine, "/home/user", DockerEngine(FuzzedMachine(_PING + data), "/sock")),
    )


def _build_lines(data: bytes) -> None:
    context = folder() / "context"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text("FROM scratch\n")
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data)
    machine = FuzzedMachine(_PING + (head + data).replace(NEXT, b"\r\n"), piece=7)
    said: list[bytes] = []
    DockerEngine(machine, "/sock").build("i", context, context / "Dockerfile", {}, said.append)


def _answers(data: bytes) -> None:
    """Return whole answers of an engine, in correct HTTP with the fuzzer's content."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data)
    talks = DockerEngine(FuzzedMachine(_PING + (head + data).replace(NEXT, b"\r\n")), "/sock")
    talks.open()
    each(
        lambda: talks.inspect("c"),
        lambda: talks.containers("a"),
        lambda: talks.listed({"a": "b"}),
        lambda: talks.image_labels("i"),
        lambda: talks.image_id("i"),
        talks.security_options,
    )
    machine = FuzzedMachine(NEXT.join([b"", _PING + (head + data).replace(NEXT, b"\r\n")]))
    each(
        lambda: collect(Site.on_vm(machine, "/r", OnlyEnded(lambda _: True), DockerEngine(machine, "/s")), dry_run=True)
    )


NAMES = ("a", "b", ".git", ".GIT", "git~1", ".git ", ".g\u200cit", ".git::$DATA", "..", ".", "", "c" * 260, "\udcff")
LINKS = ("a", "../a", "..", "../..", "/etc/passwd", "a/..", "./b/../..", "", ".git/config", "b", "../b/a", "c" * 300)
KINDS = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFREG, stat.S_IFIFO)
_LETTERS = {stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l", stat.S_IFIFO: "p"}


def _tree(data: bytes) -> None:
    """Return a listing and an archive in correct form, with names, kinds and links that no honest machine has."""
    entries = [_entry(*data[at : at + 5]) for at in range(0, len(data) - 4, 5)]
    listing = b"".join(
        f"{_LETTERS[stat.S_IFMT(entry.mode)]} {entry.size} 1.0 {entry.mode & 0o7777:o} ./{entry.path}\0".encode(
            "utf-8", "surrogateescape"
        )
        + entry.link.encode()
        + b"\0"
        for entry in entries
    )
    files = [entry for entry in entries if stat.S_ISREG(entry.mode)]
    if data and data[-1] % 3 == 0:
        files = entries  # folders and links, too: nobody asked for them
    archive = b"".join(
        tar.head(entry) + (bytes(tar.padded(entry.size)) if stat.S_ISREG(entry.mode) else b"") for entry in files
    )
    both = listing + NEXT + archive + tar.END
    for target, fetch in (
        (
            folder() / "whole",
            lambda to: fetch_tree(FuzzedMachine(both), "/w", _EmptyStore(), to, Excluded(), intake.Limits()),
        ),
        (
            folder() / "parts",
            lambda to: fetch_paths(
                FuzzedMachine(both), "/w", Choice(["a", "b"]), ["a", "b"], to, intake.Limits(), _MASKER
            ),
        ),
    ):
        each(functools.partial(fetch, target))
        stays_within(target)


_MASKER = Masker([SECRET])


class _EmptyStore:
    """A store without an earlier tree."""

    entries: dict[str, Entry] = {}  # noqa: RUF012 - as Known has it

    def put(self, path: str, target: Path) -> None:
        raise AssertionError("nothing was known")


def _entry(kind: int, one: int, two: int, three: int, link: int) -> Entry:
    parts = [NAMES[number % len(NAMES)] for number in (one, two, three)[: 1 + link % 3]]
    mode = KINDS[kind % len(KINDS)] | (kind << 3 & 0o7777)
    is_link = stat.S_ISLNK(mode)
    return Entry("/".join(parts), mode, three if stat.S_ISREG(mode) else 0, 0, LINKS[link % len(LINKS)] * is_link)


TARGETS = {
    "build-lines": Target(_build_lines, (ConnectionError, TimeoutError)),
    "doctor": Target(_doctor),
    "engine-answers": Target(_answers, (ConnectionError, TimeoutError)),
    "gc-changes": Target(_gc_changes, (ConnectionError, TimeoutError)),
    "gc-decides": Target(_gc_decides, (ConnectionError, TimeoutError)),
    "tree": Target(_tree),
}
