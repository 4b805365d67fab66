"""The decisions to remove and to keep, without a machine."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from pccpipe.gc.decide import (
    ContainerFacts,
    Decision,
    Recorded,
    RunFacts,
    SiteFacts,
    Thing,
    ThingKind,
    Why,
    decide,
)

NOW = 1_000_000.0
DAY = 86400.0
SITE = SiteFacts(NOW, DAY)
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


def decided(thing: Thing, run: RunFacts, *others: Thing, site: SiteFacts = SITE) -> Decision:
    return decide([thing, *others], run, site)[0]


@pytest.mark.parametrize("record", Recorded)
@pytest.mark.parametrize("thing", [STATE, WORKSPACE, COPY, DEAD, RUNS, TOO_LONG])
@pytest.mark.parametrize("older_than", [DAY, 0.0])
def test_nothing_of_a_run_with_a_fresh_lease_is_removed(record: Recorded, thing: Thing, older_than: float) -> None:
    run = RunFacts(record, has_processes=False, is_recorded=True)
    assert decided(old(thing), run, FRESH, site=SiteFacts(NOW, older_than)) == Decision(False, Why.LEASE_IS_FRESH, 3.0)


LIVE = [
    (RunFacts(Recorded.HELD), STATE, Why.HELD),
    (RunFacts(Recorded.NONE, has_processes=True), STATE, Why.PROCESS_RUNS),
    (RunFacts(Recorded.OPEN, has_processes=True), STATE, Why.PROCESS_RUNS),
    # Of a run of the same name on another host.
    (RunFacts(Recorded.ENDED, has_processes=True), STATE, Why.PROCESS_RUNS),
    (RunFacts(Recorded.ENDED), RUNS, Why.CONTAINER_RUNS),
    (RunFacts(Recorded.NONE), RUNS, Why.CONTAINER_RUNS),
    (
        RunFacts(Recorded.NONE),
        replace(RUNS, container=ContainerFacts("c1", True, None)),
        Why.CONTAINER_RUNS,
    ),
]


@pytest.mark.parametrize(("run", "sign", "why"), LIVE)
@pytest.mark.parametrize("thing", [STATE, WORKSPACE, COPY, DEAD, TOO_LONG, STALE])
@pytest.mark.parametrize("older_than", [DAY, 0.0])
def test_nothing_of_a_live_run_is_removed(
    run: RunFacts, sign: Thing, why: Why, thing: Thing, older_than: float
) -> None:
    decision = decided(old(thing), run, sign, site=SiteFacts(NOW, older_than))
    assert (decision.removes, decision.why) == (False, why)


@pytest.mark.parametrize("thing", [STATE, WORKSPACE, COPY, DEAD, TOO_LONG])
def test_everything_of_an_ended_run_is_removed_at_once(thing: Thing) -> None:
    assert decided(thing, RunFacts(Recorded.ENDED)) == Decision(True, Why.OVER)


def test_a_container_that_an_ended_run_left_running_is_removed() -> None:
    assert decided(RUNS, RunFacts(Recorded.ENDED, has_processes=True, is_recorded=True)) == Decision(True, Why.OVER)


def test_a_copy_with_undiffed_changes_is_kept() -> None:
    kept = replace(COPY, has_undiffed_changes=True)
    assert decide([kept, STATE], RunFacts(Recorded.ENDED), SITE) == [
        Decision(False, Why.UNDIFFED_CHANGES),
        Decision(True, Why.OVER),
    ]


@pytest.mark.parametrize("record", [Recorded.NONE, Recorded.OPEN, Recorded.WAITING, Recorded.ENDED])
@pytest.mark.parametrize("older_than", [DAY, 0.0])
def test_the_only_copy_of_changes_is_kept_until_its_run_is_discarded(record: Recorded, older_than: float) -> None:
    site = SiteFacts(NOW, older_than)
    only = replace(old(WORKSPACE), is_only_copy=True)
    decision = decided(only, RunFacts(record), site=site)
    assert not decision.removes
    assert decision.why is (Why.WAITING if (record, older_than) == (Recorded.WAITING, DAY) else Why.ONLY_COPY)
    assert decided(only, RunFacts(record, is_discarded=True), site=site) == Decision(True, Why.DISCARDED)
    assert decided(only, RunFacts(record, is_discarded=True), FRESH, site=site).removes is False


@pytest.mark.parametrize("record", [Recorded.NONE, Recorded.OPEN])
@pytest.mark.parametrize("thing", [STATE, WORKSPACE, DEAD])
def test_a_resumable_run_is_kept_until_nothing_of_it_changed_for_long(record: Recorded, thing: Thing) -> None:
    run = RunFacts(record)
    assert decided(old(thing), run) == Decision(True, Why.UNTOUCHED, 2 * DAY)
    why = Why.TOUCHED if record is Recorded.NONE else Why.INTERRUPTED
    assert decided(old(thing), run, STATE) == Decision(False, why, 60.0)
    assert decided(thing, run, site=SiteFacts(NOW, 0.0)).removes
    assert decided(replace(thing, touched=None), run).removes is False
    assert decided(replace(thing, touched=NOW + 500), run, site=SiteFacts(NOW, 0.0)).removes


def test_only_a_container_past_its_deadline_is_removed_at_once() -> None:
    assert decide([TOO_LONG, STATE], RunFacts(), SITE) == [
        Decision(True, Why.PAST_DEADLINE, 60.0),
        Decision(False, Why.TOUCHED, 0.0),
    ]


@pytest.mark.parametrize("record", [Recorded.NONE, Recorded.OPEN, Recorded.WAITING])
def test_a_local_copy_is_kept_while_its_run_has_not_ended(record: Recorded) -> None:
    why = Why.INTERRUPTED if record is Recorded.OPEN else Why.NOT_ENDED
    assert decided(COPY, RunFacts(record), site=SiteFacts(NOW, 0.0)) == Decision(False, why)


def test_a_run_that_waits_for_a_person_is_kept_without_a_time_limit() -> None:
    assert decided(old(WORKSPACE), RunFacts(Recorded.WAITING)) == Decision(False, Why.WAITING)
    assert decided(old(WORKSPACE), RunFacts(Recorded.WAITING), site=SiteFacts(NOW, 0.0)).removes


def test_things_of_a_stopped_run_are_kept_at_any_age() -> None:
    for site in (SITE, SiteFacts(NOW, 0.0)):
        for thing in (WORKSPACE, STATE):
            assert decided(old(thing), RunFacts(Recorded.STOPPED), site=site) == Decision(False, Why.STOPPED)
    assert decide([TOO_LONG], RunFacts(Recorded.STOPPED), SITE)[0].removes


def test_without_the_engine_only_ended_runs_are_removed() -> None:
    blind = SiteFacts(NOW, 0.0, engine_known=False)
    assert decided(old(STATE), RunFacts(), site=blind) == Decision(False, Why.ENGINE_UNKNOWN)
    assert decided(old(STATE), RunFacts(Recorded.ENDED), site=blind).removes


@pytest.mark.parametrize("record", [Recorded.NONE, Recorded.OPEN, Recorded.ENDED])
def test_a_stale_lease_is_removed(record: Recorded) -> None:
    assert decided(STALE, RunFacts(record)) == Decision(True, Why.STALE_LEASE, 700.0)
    assert decided(replace(STALE, beat=None), RunFacts(record)).removes


def test_a_run_that_may_only_be_cut_off_keeps_its_lease() -> None:
    lease = replace(STALE, beat=100.0)
    assert decided(lease, RunFacts(Recorded.OPEN)) == Decision(False, Why.CUT_OFF, 100.0)
    assert decided(lease, RunFacts(Recorded.OPEN), site=SiteFacts(NOW, 0.0)).removes
    assert decided(lease, RunFacts(Recorded.ENDED)).removes
