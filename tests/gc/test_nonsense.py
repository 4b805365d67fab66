"""A machine that lies to gc: senseless answers are one error, and no lie makes the things of a run look old."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pccpipe import limits
from pccpipe.errors import Nonsense, Unavailable
from pccpipe.gc.decide import CUT_OFF_LIMIT, Recorded
from pccpipe.gc.lease_folder import stray_files
from pccpipe.gc.look import Inventory, Site, look
from pccpipe.gc.report import RemovalStatus, SiteReport
from pccpipe.gc.sweep import collect
from pccpipe.gc.unknown import unknown_processes
from pccpipe.machine.base import Done
from tests.fuzz.sides import NEXT, FuzzedMachine
from tests.stall import measured

DAY = 86400


class Open:
    """Records in which every run can be resumed."""

    def of(self, run_id: str) -> Recorded:
        return Recorded.OPEN

    def names_all(self, run_id: str, marks: object) -> bool:
        return False

    def has_undiffed_changes(self, run_id: str) -> bool:
        return True

    def has_only_copy_on_vm(self, run_id: str) -> bool:
        return False

    def unheld(self, run_id: str) -> object:
        raise AssertionError("gc must not remove anything")


def site(answer: str) -> Site:
    data = answer.encode(errors="surrogateescape").replace(NEXT, b"")
    return Site.on_vm(FuzzedMachine(data + NEXT + b"free"), "/srv", Open(), None)  # type: ignore[arg-type]


def listing(*rows: tuple[object, ...], now: object = 1_700_000_000) -> str:
    return "".join(f"{field}\0" for row in (("now", "-", "-", "-", now), *rows) for field in row)


def found(*rows: tuple[object, ...], now: object = 1_700_000_000) -> Inventory:
    return look(site(listing(*rows, now=now)))


WORKSPACE = ("run-workspaces", "r1", "folder")


@pytest.mark.parametrize(
    "now", ["-1", "x", "", "1e9", "inf", "nan", "9" * 400, "1.5", "\u0661", " 1", "0x10", "1_000", str(10**15 + 1)]
)
def test_a_senseless_clock_is_nonsense(now: str) -> None:
    with pytest.raises(Nonsense, match="invalid answer"):
        found(now=now)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "now\0-\0-\0-\0" + "1",
        listing(WORKSPACE),
        listing() + "half",
        listing(("run-workspaces/../..", "r1", "folder", "1", "1")),
        listing(("/etc", "r1", "folder", "1", "1")),
        listing(("/etc", "x", "other", "-", "-")),
        listing(("runs/r1", "workspace", "copy", "1", "1")),
        listing(("run-state", "r1", "thing", "1", "1")),
        listing(("later", "-", "-", "-", "-")),
        listing(("now", "-", "-", "-", "5")),
        listing().partition("\0")[2],
    ],
)
def test_a_senseless_list_is_nonsense(answer: str) -> None:
    with pytest.raises(Nonsense, match="invalid answer"):
        look(site(answer))


@pytest.mark.parametrize("size", ["-1", "x", "9" * 400, "nan", "", "-"])
def test_a_senseless_size_or_time_is_ignored_and_removes_nothing(size: str) -> None:
    things = found((*WORKSPACE, size, size)).groups["r1"].things
    assert [(thing.size, thing.touched) for thing in things] == [(0, None)]
    assert statuses(listing((*WORKSPACE, size, size))) == [RemovalStatus.KEPT]


def statuses(answer: str) -> list[RemovalStatus]:
    done: SiteReport = collect(site(answer), dry_run=True)
    return [removal.status for removal in done.removals]


@pytest.mark.parametrize("ahead", [3600, 2 * DAY, 10**12])
def test_a_clock_that_is_ahead_makes_nothing_look_old(ahead: int) -> None:
    now = int(time.time())
    assert statuses(listing((*WORKSPACE, 1, now - 60), now=now + ahead)) == [RemovalStatus.KEPT]
    assert statuses(listing((*WORKSPACE, 1, now + 2 * DAY), now=now + ahead)) == [RemovalStatus.KEPT]
    # A thing that is old by this machine's clock too is still removed.
    assert statuses(listing((*WORKSPACE, 1, now - 2 * DAY), now=now + ahead)) == [RemovalStatus.PLANNED]
    assert CUT_OFF_LIMIT < DAY


FIELD = st.one_of(
    st.sampled_from(
        [
            "now",
            "run-workspaces",
            "run-state",
            "run-io",
            "r1",
            "..",
            "folder",
            "copy",
            "other",
            "more",
            "-",
            "tag",
            "live",
        ]
    ),
    st.sampled_from(["claim", "held", "lane", "wrong", "1", "-1", "9" * 30, "a b", "\n", "\x1b[2J", "é", "\udcff"]),
)


@given(st.lists(st.tuples(FIELD, FIELD, FIELD, FIELD, FIELD), max_size=6), st.text(max_size=3))
def test_any_list_is_nonsense_or_describes_runs(rows: list[tuple[str, ...]], rest: str) -> None:
    try:
        seen = look(site(listing(*rows) + rest))
    except Nonsense:
        return
    for group in seen.groups.values():
        assert group.run_id == "r1" or group.run_id.isalnum()
        for thing in group.things:
            assert thing.name.split("/")[0] in {"run-workspaces", "run-state", "run-io", "lease", "processes"}
            assert thing.size >= 0
            assert thing.touched is None or 0 <= thing.touched <= 10**15


@given(st.binary(max_size=60))
def test_any_other_answer_is_nonsense_or_understood(said: bytes) -> None:
    for ask in (stray_files, unknown_processes):
        try:
            ask(FuzzedMachine(said), "/srv")
        except Unavailable as error:
            assert "vm" in error.words  # noqa: PT017


MANY = """
from tests.gc.test_nonsense import site, listing, look, unknown_processes, FuzzedMachine
fields = FIELDS
said = listing() + fields
"""


@pytest.mark.parametrize("fields", ["chr(0) * (8 << 20)", "(chr(97) * 31 + chr(0)) * (1 << 18)", "chr(97) * (8 << 20)"])
def test_an_endless_list_takes_little_memory(fields: str) -> None:
    _, memory, said = measured(MANY.replace("FIELDS", fields), "look(site(said))")
    assert said.startswith("Nonsense")
    assert memory < limits.MACHINE_ANSWER.most + limits.MARGIN


def test_an_endless_answer_of_a_machine_is_cut() -> None:
    setup = """
    from pccpipe.machine.local import LocalMachine
    from pccpipe.errors import Nonsense
    """
    _, memory, said = measured(setup, "LocalMachine().run('yes', 60)")
    assert said.startswith("Nonsense")
    assert "exceeds the limit of 40 MiB" in said
    assert memory < limits.MACHINE_ANSWER.most + limits.MARGIN


def test_the_words_of_a_failure_are_cut() -> None:
    from pccpipe.machine.local import LocalMachine

    done: Done = LocalMachine().run("head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 3")
    assert (done.code, len(done.stderr)) == (3, limits.MACHINE_WORDS.most)
