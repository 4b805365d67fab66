"""What goes and what stays, without a machine."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from pccpipe.gc.decide import ContainerFacts, Decision, Moment, Record, RunFacts, Thing, ThingKind, Why, decide

NOW = 1_000_000.0
DAY = 86400.0
MOMENT = Moment(NOW, DAY)
OLD, NEW = NOW - 2 * DAY, NOW - 60

STATE = Thing(ThingKind.STATE, "run-state/r", "r", 4096, NEW)
WORKSPACE = Thing(ThingKind.WORKSPACE, "run-workspaces/r", "r", 4096, NEW)
COPY = Thing(ThingKind.COPY, "run-workspaces/r", "r", 4096, OLD)
DEAD = Thing(ThingKind.CONTAINER, "box", "r", 0, NEW, ContainerFacts("c1", False, NOW + 60))
RUNS = Thing(ThingKind.CONTAINER, "box", "r", 0, NOW, ContainerFacts("c1", True, NOW + 60))
TOO_LONG = replace(RUNS, container=ContainerFacts("c1", True, NOW - 60))
FRESH = Thing(ThingKind.LEASE, "lease", "r", beat=3.0)
STALE = Thing(ThingKind.LEASE, "lease", "r", beat=700.0, is_stale=True)


def old(thing: Thing) -> Thing:
    return replace(thing, touched=OLD)


def verdict(thing: Thing, run: RunFacts, *others: Thing, moment: Moment = MOMENT) -> Decision:
    return decide([thing, *others], run, moment)[0]


@pytest.mark.parametrize("record", Record)
@pytest.mark.parametrize("thing", [STATE, WORKSPACE, COPY, DEAD, RUNS, TOO_LONG])
@pytest.mark.parametrize("older_than", [DAY, 0.0])
def test_a_run_with_a_fresh_lease_is_never_touched(record: Record, thing: Thing, older_than: float) -> None:
    run = RunFacts(record, has_processes=False, is_recorded=True)
    assert verdict(old(thing), run, FRESH, moment=Moment(NOW, older_than)) == Decision(False, Why.LEASE_IS_FRESH, 3.0)


LIVE = [
    (RunFacts(Record.HELD), STATE, Why.HELD),
    (RunFacts(Record.NONE, has_processes=True), STATE, Why.PROCESS_RUNS),
    (RunFacts(Record.OPEN, has_processes=True), STATE, Why.PROCESS_RUNS),
    # Another host's, of the same name.
    (RunFacts(Record.ENDED, has_processes=True), STATE, Why.PROCESS_RUNS),
    (RunFacts(Record.ENDED), RUNS, Why.CONTAINER_RUNS),
    (RunFacts(Record.NONE), RUNS, Why.CONTAINER_RUNS),
    (RunFacts(Record.NONE), replace(RUNS, container=ContainerFacts("c1", True, None)), Why.CONTAINER_RUNS),
]


@pytest.mark.parametrize(("run", "sign", "why"), LIVE)
@pytest.mark.parametrize("thing", [STATE, WORKSPACE, COPY, DEAD, TOO_LONG, STALE])
@pytest.mark.parametrize("older_than", [DAY, 0.0])
def test_nothing_of_a_live_run_is_touched(
    run: RunFacts, sign: Thing, why: Why, thing: Thing, older_than: float
) -> None:
    told = verdict(old(thing), run, sign, moment=Moment(NOW, older_than))
    assert (told.goes, told.why) == (False, why)


@pytest.mark.parametrize("thing", [STATE, WORKSPACE, COPY, DEAD, TOO_LONG])
def test_all_of_a_run_that_is_over_goes_at_once(thing: Thing) -> None:
    assert verdict(thing, RunFacts(Record.ENDED)) == Decision(True, Why.OVER)


def test_so_does_what_it_left_running() -> None:
    assert verdict(RUNS, RunFacts(Record.ENDED, has_processes=True, is_recorded=True)) == Decision(True, Why.OVER)


def test_but_not_a_copy_with_changes_that_no_diff_has() -> None:
    kept = replace(COPY, has_undiffed_changes=True)
    assert decide([kept, STATE], RunFacts(Record.ENDED), MOMENT) == [
        Decision(False, Why.UNTOLD_CHANGES),
        Decision(True, Why.OVER),
    ]


@pytest.mark.parametrize("record", [Record.NONE, Record.OPEN, Record.WAITING, Record.ENDED])
@pytest.mark.parametrize("older_than", [DAY, 0.0])
def test_nor_a_workspace_whose_changes_are_nowhere_else_until_its_run_is_named(
    record: Record, older_than: float
) -> None:
    moment = Moment(NOW, older_than)
    only = replace(old(WORKSPACE), is_only_copy=True)
    told = verdict(only, RunFacts(record), moment=moment)
    assert not told.goes
    assert told.why is (Why.WAITING if (record, older_than) == (Record.WAITING, DAY) else Why.ONLY_COPY)
    assert verdict(only, RunFacts(record, is_discarded=True), moment=moment) == Decision(True, Why.DISCARDED)
    assert verdict(only, RunFacts(record, is_discarded=True), FRESH, moment=moment).goes is False


@pytest.mark.parametrize("record", [Record.NONE, Record.OPEN])
@pytest.mark.parametrize("thing", [STATE, WORKSPACE, DEAD])
def test_a_run_that_may_be_resumed_is_kept_until_all_of_it_has_been_still(record: Record, thing: Thing) -> None:
    run = RunFacts(record)
    assert verdict(old(thing), run) == Decision(True, Why.UNTOUCHED, 2 * DAY)
    why = Why.TOUCHED if record is Record.NONE else Why.INTERRUPTED
    assert verdict(old(thing), run, STATE) == Decision(False, why, 60.0)
    assert verdict(thing, run, moment=Moment(NOW, 0.0)).goes
    assert verdict(replace(thing, touched=None), run).goes is False
    assert verdict(replace(thing, touched=NOW + 500), run, moment=Moment(NOW, 0.0)).goes


def test_a_container_whose_deadline_has_passed_goes_at_once_and_alone() -> None:
    assert decide([TOO_LONG, STATE], RunFacts(), MOMENT) == [
        Decision(True, Why.PAST_DEADLINE, 60.0),
        Decision(False, Why.TOUCHED, 0.0),
    ]


@pytest.mark.parametrize("record", [Record.NONE, Record.OPEN, Record.WAITING])
def test_a_copy_at_home_stays_while_its_run_has_not_ended(record: Record) -> None:
    why = Why.INTERRUPTED if record is Record.OPEN else Why.NOT_ENDED
    assert verdict(COPY, RunFacts(record), moment=Moment(NOW, 0.0)) == Decision(False, why)


def test_a_run_that_waits_for_a_person_is_kept_however_long_that_takes() -> None:
    assert verdict(old(WORKSPACE), RunFacts(Record.WAITING)) == Decision(False, Why.WAITING)
    assert verdict(old(WORKSPACE), RunFacts(Record.WAITING), moment=Moment(NOW, 0.0)).goes


def test_what_a_stopped_run_keeps_is_kept_whatever_its_age() -> None:
    for moment in (MOMENT, Moment(NOW, 0.0)):
        for thing in (WORKSPACE, STATE):
            assert verdict(old(thing), RunFacts(Record.STOPPED), moment=moment) == Decision(False, Why.STOPPED)
    assert decide([TOO_LONG], RunFacts(Record.STOPPED), MOMENT)[0].goes


def test_without_the_engine_only_what_is_over_goes() -> None:
    blind = Moment(NOW, 0.0, engine_known=False)
    assert verdict(old(STATE), RunFacts(), moment=blind) == Decision(False, Why.ENGINE_UNKNOWN)
    assert verdict(old(STATE), RunFacts(Record.ENDED), moment=blind).goes


@pytest.mark.parametrize("record", [Record.NONE, Record.OPEN, Record.ENDED])
def test_a_stale_lease_goes(record: Record) -> None:
    assert verdict(STALE, RunFacts(record)) == Decision(True, Why.STALE_LEASE, 700.0)
    assert verdict(replace(STALE, beat=None), RunFacts(record)).goes


def test_a_run_that_may_only_be_cut_off_keeps_its_lease() -> None:
    lease = replace(STALE, beat=100.0)
    assert verdict(lease, RunFacts(Record.OPEN)) == Decision(False, Why.CUT_OFF, 100.0)
    assert verdict(lease, RunFacts(Record.OPEN), moment=Moment(NOW, 0.0)).goes
    assert verdict(lease, RunFacts(Record.ENDED)).goes
