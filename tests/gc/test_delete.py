"""The removal of one run's record: `pccpipe rm`, and `delete_run` of the library."""

from __future__ import annotations

from pathlib import Path

import pytest

import pccpipe
from pccpipe.layout import COPY, EVENTS, REMOVED, STATES
from pccpipe.record.journal import Journal
from pccpipe.record.lock import RunLock
from pccpipe.record.run_events import RunWaiting
from tests.cli.command import Folder

TEXT = "version: 1\nname: x\nsteps:\n"
ECHO = "  - {id: a, on: local, run: echo words}\n"
WORK = "  - {id: up, upload: workspace}\n  - {id: work, on: local, run: 'echo done >file; chmod 500 .'}\n"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / ".system" / "runs"


def run(runs: Path, run_id: str, steps: str) -> Path:
    workspace = runs.parents[1] / "workspace"
    workspace.mkdir(exist_ok=True)
    (workspace / "code").write_text("code")
    pccpipe.run(pccpipe.load(TEXT + steps), run_id=run_id, runs_dir=runs, workspace=workspace)
    return runs / run_id


def resumable(record: Path) -> None:
    """Make a record of a run that has not ended."""
    record.mkdir()
    lines = (record.parent / "r1" / EVENTS).read_bytes().splitlines(keepends=True)
    (record / EVENTS).write_bytes(b"".join(lines[:-1]))


def test_the_record_goes_with_the_files_of_its_commands(runs: Path) -> None:
    record = run(runs, "r1", ECHO)
    run(runs, "r2", ECHO)
    for run_id in ("r1", "r2"):
        (runs.parent / STATES / run_id).mkdir()
        (runs.parent / STATES / run_id / "spool").write_bytes(b"x" * 1000)
    size = sum(path.lstat().st_size for path in record.rglob("*") if path.is_file())
    removed = pccpipe.delete_run("r1", runs_dir=runs)
    assert removed == pccpipe.RemovedRun("r1", record, size + 1000)
    assert [entry.run_id for entry in pccpipe.list_runs(runs_dir=runs)] == ["r2"]
    assert [path.name for path in runs.iterdir() if path.is_dir()] == ["r2"]
    assert not (runs.parent / STATES / "r1").exists()
    assert (runs.parent / STATES / "r2" / "spool").exists()
    with pytest.raises(pccpipe.UsageError, match="there is no run 'r1'"):
        pccpipe.delete_run("r1", runs_dir=runs)


def test_a_removal_follows_no_link(runs: Path, tmp_path: Path) -> None:
    record = run(runs, "r1", ECHO)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("mine")
    (record / "logs" / "folder").symlink_to(outside)
    (record / "logs" / "file").symlink_to(outside / "file")
    (record / "logs").chmod(0o500)
    (runs.parent / STATES / "r1").symlink_to(outside)
    assert pccpipe.delete_run("r1", runs_dir=runs).left == ()
    assert not record.exists()
    assert (outside / "file").read_text() == "mine"
    elsewhere = run(runs, "r2", ECHO).rename(tmp_path / "elsewhere")
    (runs / "r2").symlink_to(elsewhere)
    pccpipe.delete_run("r2", runs_dir=runs)
    assert not (runs / "r2").is_symlink()
    assert (elsewhere / EVENTS).exists()


def test_the_folder_of_states_is_no_link(runs: Path, tmp_path: Path) -> None:
    run(runs, "r1", ECHO)
    (runs.parent / STATES).rename(tmp_path / "states")
    (runs.parent / STATES).symlink_to(tmp_path / "states")
    (tmp_path / "states" / "r1").mkdir()
    pccpipe.delete_run("r1", runs_dir=runs)
    assert (tmp_path / "states" / "r1").exists()


def test_a_run_that_can_be_resumed_stays_unless_forced(runs: Path) -> None:
    run(runs, "r1", ECHO)
    resumable(runs / "gone-on")
    with pytest.raises(pccpipe.UsageError, match="run gone-on has not ended: it is running"):
        pccpipe.delete_run("gone-on", runs_dir=runs)
    journal = Journal(runs / "gone-on")
    journal.append(RunWaiting("words"))
    journal.close()
    with pytest.raises(pccpipe.UsageError, match="it is waiting_for_input"):
        pccpipe.delete_run("gone-on", runs_dir=runs)
    assert (runs / "gone-on").exists()
    pccpipe.delete_run("gone-on", runs_dir=runs, force=True)
    assert not (runs / "gone-on").exists()


def test_a_run_of_a_living_process_stays_even_if_forced(runs: Path) -> None:
    record = run(runs, "r1", ECHO)
    lock = RunLock(record)
    lock.take()
    with pytest.raises(pccpipe.UsageError, match="run r1 is running"):
        pccpipe.delete_run("r1", runs_dir=runs, force=True)
    assert record.exists()
    lock.release()
    pccpipe.delete_run("r1", runs_dir=runs)


def test_the_only_copy_of_work_is_named_with_its_size(runs: Path) -> None:
    record = run(runs, "r1", WORK)
    assert (record / COPY / "file").read_text() == "done\n"
    only = pccpipe.delete_run("r1", runs_dir=runs).only_copies
    assert (only.local, only.size, only.is_on_vm) == (record / COPY, len("code" + "done\n"), False)
    assert not record.exists()
    run(runs, "r2", WORK + "  - {id: d, diff: diff.patch}\n")
    assert pccpipe.delete_run("r2", runs_dir=runs).only_copies == pccpipe.OnlyCopies()


def test_a_removal_that_a_crash_interrupted_is_finished_by_the_next(runs: Path) -> None:
    half = run(runs, "r1", ECHO).rename(runs / f"{REMOVED}r1-0123")
    run(runs, "r2", ECHO)
    assert [entry.run_id for entry in pccpipe.list_runs(runs_dir=runs)] == ["r2"]
    pccpipe.delete_run("r2", runs_dir=runs)
    assert not half.exists()


def test_the_command_names_what_it_removes(runs: Path, tmp_path: Path) -> None:
    run(runs, "r1", ECHO)
    run(runs, "r2", WORK)
    resumable(runs / "open")
    folder = Folder(tmp_path)
    refused = folder.do("rm", "open")
    assert refused.code == 2
    assert "run open has not ended" in refused.stderr
    assert "--force" in refused.stderr
    missing = folder.do("rm", "r1", "nope")
    assert (missing.code, (runs / "r1").exists()) == (2, True)
    done = folder.do("rm", "r1", "r2")
    assert done.code == 0
    first, second, only = done.stdout.splitlines()
    assert first.startswith("removed run r1, ")
    assert second.startswith("removed run r2, ")
    assert "the only copy of files that the run changed" in only
    assert folder.do("rm", "--force", "open").code == 0
    assert [path.name for path in runs.iterdir() if path.is_dir()] == []
