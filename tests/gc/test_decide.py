"""What goes and what stays, without a machine."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from pccpipe.gc.decide import Container, Kind, Moment, Record, Run, Thing, Verdict, Why, decide

NOW = 1_000_000.0
DAY = 86400.0
MOMENT = Moment(NOW, DAY)
OLD, NEW = NOW - 2 * DAY, NOW - 60

STATE = Thing(Kind.STATE, "run-state/r", "r", 4096, NEW)
WORKSPACE = Thing(Kind.WORKSPACE, "run-workspaces/r", "r", 4096, NEW)
COPY = Thing(Kind.COPY, "run-workspaces/r", "r", 4096, OLD)
DEAD = Thing(Kind.CONTAINER, "box", "r", 0, NEW, Container("c1", False, NOW + 60))
RUNS = Thing(Kind.CONTAINER, "box", "r", 0, NOW, Container("c1", True, NOW + 60))
TOO_LONG = replace(RUNS, container=Container("c1", True, NOW - 60))
FRESH = Thing(Kind.LEASE, "lease", "r", beat=3.0)
STALE = Thing(Kind.LEASE, "lease", "r", beat=700.0, is_stale=True)


def old(thing: Thing) -> Thing:
    return replace(thing, touched=OLD)


def verdict(thing: Thing, run: Run, *others: Thing, moment: Moment = MOMENT) -> Verdict:
    return decide([thing, *others], run, moment)[0]


@pytest.mark.parametrize("record", Record)
@pytest.mark.parametrize("thing", [STATE, WORKSPACE, COPY, DEAD, RUNS, TOO_LONG])
@pytest.mark.parametrize("older_than", [DAY, 0.0])
def test_a_run_with_a_fresh_lease_is_never_touched(record: Record, thing: Thing, older_than: float) -> None:
    run = Run(record, has_processes=False, is_recorded=True)
    assert verdict(old(thing), run, FRESH, moment=Moment(NOW, older_than)) == Verdict(False, Why.LEASE_IS_FRESH, 3.0)


LIVE = [
    (Run(Record.HELD), STATE, Why.HELD),
    (Run(Record.NONE, has_processes=True), STATE, Why.PROCESS_RUNS),
    (Run(Record.OPEN, has_processes=True), STATE, Why.PROCESS_RUNS),
    # Another host's, of the same name.
    (Run(Record.ENDED, has_processes=True), STATE, Why.PROCESS_RUNS),
    (Run(Record.ENDED), RUNS, Why.CONTAINER_RUNS),
    (Run(Record.NONE), RUNS, Why.CONTAINER_RUNS),
    (Run(Record.NONE), replace(RUNS, container=Container("c1", True, None)), Why.CONTAINER_RUNS),
]


@pytest.mark.parametrize(("run", "sign", "why"), LIVE)
@pytest.mark.parametrize("thing", [STATE, WORKSPACE, COPY, DEAD, TOO_LONG, STALE])
@pytest.mark.parametrize("older_than", [DAY, 0.0])
def test_nothing_of_a_live_run_is_touched(run: Run, sign: Thing, why: Why, thing: Thing, older_than: float) -> None:
    told = verdict(old(thing), run, sign, moment=Moment(NOW, older_than))
    assert (told.goes, told.why) == (False, why)


@pytest.mark.parametrize("thing", [STATE, WORKSPACE, COPY, DEAD, TOO_LONG])
def test_all_of_a_run_that_is_over_goes_at_once(thing: Thing) -> None:
    assert verdict(thing, Run(Record.ENDED)) == Verdict(True, Why.OVER)


def test_so_does_what_it_left_running() -> None:
    assert verdict(RUNS, Run(Record.ENDED, has_processes=True, is_recorded=True)) == Verdict(True, Why.OVER)


def test_but_not_a_copy_with_changes_that_no_diff_has() -> None:
    kept = replace(COPY, has_untold_changes=True)
    assert decide([kept, STATE], Run(Record.ENDED), MOMENT) == [
        Verdict(False, Why.UNTOLD_CHANGES),
        Verdict(True, Why.OVER),
    ]


@pytest.mark.parametrize("record", [Record.NONE, Record.OPEN, Record.WAITING, Record.ENDED])
@pytest.mark.parametrize("older_than", [DAY, 0.0])
def test_nor_a_workspace_whose_changes_are_nowhere_else_until_its_run_is_named(
    record: Record, older_than: float
) -> None:
    moment = Moment(NOW, older_than)
    only = replace(old(WORKSPACE), is_only_copy=True)
    told = verdict(only, Run(record), moment=moment)
    assert not told.goes
    assert told.why is (Why.WAITING if (record, older_than) == (Record.WAITING, DAY) else Why.ONLY_COPY)
    assert verdict(only, Run(record, is_discarded=True), moment=moment) == Verdict(True, Why.DISCARDED)
    assert verdict(only, Run(record, is_discarded=True), FRESH, moment=moment).goes is False


@pytest.mark.parametrize("record", [Record.NONE, Record.OPEN])
@pytest.mark.parametrize("thing", [STATE, WORKSPACE, DEAD])
def test_a_run_that_may_be_resumed_is_kept_until_all_of_it_has_been_still(record: Record, thing: Thing) -> None:
    run = Run(record)
    assert verdict(old(thing), run) == Verdict(True, Why.UNTOUCHED, 2 * DAY)
    why = Why.TOUCHED if record is Record.NONE else Why.INTERRUPTED
    assert verdict(old(thing), run, STATE) == Verdict(False, why, 60.0)
    assert verdict(thing, run, moment=Moment(NOW, 0.0)).goes
    assert verdict(replace(thing, touched=None), run).goes is False
    assert verdict(replace(thing, touched=NOW + 500), run, moment=Moment(NOW, 0.0)).goes


def test_a_container_whose_deadline_has_passed_goes_at_once_and_alone() -> None:
    assert decide([TOO_LONG, STATE], Run(), MOMENT) == [
        Verdict(True, Why.PAST_DEADLINE, 60.0),
        Verdict(False, Why.TOUCHED, 0.0),
    ]


@pytest.mark.parametrize("record", [Record.NONE, Record.OPEN, Record.WAITING])
def test_a_copy_at_home_stays_while_its_run_has_not_ended(record: Record) -> None:
    why = Why.INTERRUPTED if record is Record.OPEN else Why.NOT_ENDED
    assert verdict(COPY, Run(record), moment=Moment(NOW, 0.0)) == Verdict(False, why)


def test_a_run_that_waits_for_a_person_is_kept_however_long_that_takes() -> None:
    assert verdict(old(WORKSPACE), Run(Record.WAITING)) == Verdict(False, Why.WAITING)
    assert verdict(old(WORKSPACE), Run(Record.WAITING), moment=Moment(NOW, 0.0)).goes


def test_what_a_stopped_run_keeps_is_kept_whatever_its_age() -> None:
    for moment in (MOMENT, Moment(NOW, 0.0)):
        for thing in (WORKSPACE, STATE):
            assert verdict(old(thing), Run(Record.STOPPED), moment=moment) == Verdict(False, Why.STOPPED)
    assert decide([TOO_LONG], Run(Record.STOPPED), MOMENT)[0].goes


def test_without_the_engine_only_what_is_over_goes() -> None:
    blind = Moment(NOW, 0.0, engine_known=False)
    assert verdict(old(STATE), Run(), moment=blind) == Verdict(False, Why.ENGINE_UNKNOWN)
    assert verdict(old(STATE), Run(Record.ENDED), moment=blind).goes


@pytest.mark.parametrize("record", [Record.NONE, Record.OPEN, Record.ENDED])
def test_a_stale_lease_goes(record: Record) -> None:
    assert verdict(STALE, Run(record)) == Verdict(True, Why.STALE_LEASE, 700.0)
    assert verdict(replace(STALE, beat=None), Run(record)).goes


def test_a_run_that_may_only_be_cut_off_keeps_its_lease() -> None:
    lease = replace(STALE, beat=100.0)
    assert verdict(lease, Run(Record.OPEN)) == Verdict(False, Why.CUT_OFF, 100.0)
    assert verdict(lease, Run(Record.OPEN), moment=Moment(NOW, 0.0)).goes
    assert verdict(lease, Run(Record.ENDED)).goes
