"""Records beyond a project's `keep:`: `pccpipe gc --records`, and `prune` of the library."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import pccpipe
from pccpipe.layout import COPY, EVENTS, SYNC_STATE
from pccpipe.outcome import IsolationMode, Outcome
from pccpipe.record.codec import encode
from pccpipe.record.events import Event
from pccpipe.record.lock import RunLock
from pccpipe.record.run_events import RunEnded, RunStarted
from tests.cli.command import Folder

DAY = 86400.0
RUNS = Path(".system/runs")


def record(runs: Path, run_id: str, days: float, *, project: str = "p", ended: bool = True, copy: bool = False) -> Path:
    """Write the record of a run that ended some days ago."""
    folder = runs / run_id
    folder.mkdir(parents=True)
    at = time.time() - days * DAY
    started = RunStarted(run_id, "x", "x.yaml", project, IsolationMode.LOCAL, {}, "/w", (), "1", "here", 1)
    events = [Event(1, at - 1, started)]
    if ended:
        events.append(Event(2, at, RunEnded(Outcome.SUCCEEDED, "succeeded", False, 1.0)))
    (folder / EVENTS).write_bytes(b"".join(encode(event) for event in events))
    if copy:
        (folder / COPY).mkdir()
        (folder / COPY / "file").write_bytes(b"x" * 5000)
    return folder


def project(days: int | None = None, runs: int | None = None, only_copies: float | None = None) -> pccpipe.Project:
    return pccpipe.Project("p", IsolationMode.LOCAL, keep=pccpipe.Keep(days, runs, only_copies))


def removed(pruned: tuple[pccpipe.PrunedRun, ...]) -> list[str]:
    return [each.run_id for each in pruned if each.status is pccpipe.RemovalStatus.REMOVED]


def test_records_beyond_the_days_go(tmp_path: Path) -> None:
    for days in (1, 29, 31, 100):
        record(tmp_path, f"d{days}", days)
    planned = pccpipe.prune(project(days=30), runs_dir=tmp_path, dry_run=True)
    assert [(each.run_id, each.status.value) for each in planned] == [("d31", "planned"), ("d100", "planned")]
    assert len(pccpipe.list_runs(runs_dir=tmp_path)) == 4
    assert removed(pccpipe.prune(project(days=30), runs_dir=tmp_path)) == ["d31", "d100"]
    assert [entry.run_id for entry in pccpipe.list_runs(runs_dir=tmp_path)] == ["d1", "d29"]


def test_the_newest_runs_of_the_project_stay(tmp_path: Path) -> None:
    for number in range(5):
        record(tmp_path, f"p{number}", number)
        record(tmp_path, f"other{number}", number, project="other")
    assert removed(pccpipe.prune(project(runs=2), runs_dir=tmp_path)) == ["p2", "p3", "p4"]
    assert len(list(tmp_path.glob("other*"))) == 5


def test_a_run_that_has_not_ended_stays(tmp_path: Path) -> None:
    record(tmp_path, "open", 100, ended=False)
    record(tmp_path, "gone", 100)
    held = RunLock(record(tmp_path, "held", 100))
    held.take()
    pruned = pccpipe.prune(project(days=1, only_copies=1.0), runs_dir=tmp_path)
    assert removed(pruned) == ["gone"]
    assert {each.run_id: each.status.value for each in pruned} == {"gone": "removed", "held": "kept"}
    assert (tmp_path / "open").exists()
    assert (tmp_path / "held").exists()
    held.release()


def test_the_only_copy_of_work_stays_unless_the_project_gives_it_an_end(tmp_path: Path) -> None:
    folder = record(tmp_path, "work", 100, copy=True)
    for only_copies in (None, 101 * DAY):
        (kept,) = pccpipe.prune(project(days=30, only_copies=only_copies), runs_dir=tmp_path)
        assert kept.status is pccpipe.RemovalStatus.KEPT
        assert kept.only_copies == pccpipe.OnlyCopies(folder / COPY, 5000)
    assert removed(pccpipe.prune(project(days=30, only_copies=99 * DAY), runs_dir=tmp_path)) == ["work"]
    assert not folder.exists()


def test_a_record_stays_while_the_vm_has_the_only_copy(tmp_path: Path) -> None:
    folder = record(tmp_path, "work", 100)
    state = '{"exclude":[],"has_copy":true,"on_vm":true,"newest":"vm","last_patch":"","stale_patch":false}'
    (folder / SYNC_STATE).write_text(state)
    (kept,) = pccpipe.prune(project(days=30), runs_dir=tmp_path)
    assert (kept.status, kept.only_copies.is_on_vm) == (pccpipe.RemovalStatus.KEPT, True)
    assert folder.exists()


def test_without_a_bound_nothing_is_pruned(tmp_path: Path) -> None:
    record(tmp_path, "old", 1000)
    with pytest.raises(pccpipe.UsageError, match="has no `keep:` with days or runs"):
        pccpipe.prune(project(only_copies=1.0), runs_dir=tmp_path)
    assert (tmp_path / "old").exists()


def test_the_command_shows_what_goes_and_what_stays(tmp_path: Path) -> None:
    file, folder = tmp_path / "pccpipe.yaml", Folder(tmp_path)
    file.write_text("id: p\n")
    runs = tmp_path / RUNS
    record(runs, "new", 1)
    old = record(runs, "old", 31)
    work = record(runs, "work", 40, copy=True)
    refused = folder.do("gc", "--records")
    assert (refused.code, "has no `keep:`" in refused.stderr) == (2, True)
    file.write_text("id: p\nkeep: {days: 30, runs: 200}\n")
    planned = folder.do("gc", "--records", "--dry-run")
    assert planned.code == 0, planned.stderr
    assert "  would go  record of run old, " in planned.stdout
    assert "kept      record of run work, " in planned.stdout
    assert f"only {work / COPY} has all changes of the run, 5.0 kB" in planned.stdout
    assert "to remove it anyway: pccpipe rm work" in planned.stdout
    assert old.exists()
    done = folder.do("gc", "--records")
    assert "  removed   record of run old, " in done.stdout
    assert (done.code, old.exists(), work.exists(), (runs / "new").exists()) == (0, False, True, True)
    file.write_text("id: p\nkeep: {days: 30, only_copies: 39d}\n")
    assert "  removed   record of run work, " in folder.do("gc", "--records").stdout
    assert not work.exists()
    assert "none is beyond keep:" in folder.do("gc", "--records").stdout
