from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from pccpipe.layout import ENDED_RUNS, EVENTS, LOCK
from pccpipe.outcome import IsolationMode, Outcome
from pccpipe.record.events import StepStarted, Warned
from pccpipe.record.index import list_runs, read_runs
from pccpipe.record.journal import Journal
from pccpipe.record.lock import RunLock
from pccpipe.record.run_events import RunEnded, RunStarted
from pccpipe.record.tail import GrowingJournal
from tests.record.script import default_run


def gone_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def begun(folder: Path, pid: int, host: str = "") -> Journal:
    journal = Journal.create(folder)
    name = host or socket.gethostname()
    journal.append(RunStarted(folder.name, "p", "/p", None, IsolationMode.LOCAL, {}, "/w", (), "0", name, pid))
    return journal


def test_runs_are_listed_with_their_status_the_newest_first(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "done")
    for what in default_run():
        journal.append(what)
    journal.append(Warned("and one word more"))
    begun(tmp_path / "lives", os.getpid())
    begun(tmp_path / "dead", gone_pid())
    (tmp_path / "dead" / LOCK).write_text(json.dumps({"host": socket.gethostname(), "pid": gone_pid()}))
    begun(tmp_path / "elsewhere", gone_pid(), "another-host")
    (tmp_path / "elsewhere" / LOCK).write_text(json.dumps({"host": "another-host", "pid": gone_pid()}))
    lives = RunLock(tmp_path / "lives")
    lives.take()
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / EVENTS).write_text('{"seq":1,"ti')
    assert {entry.run_id: entry.status for entry in list_runs(tmp_path)} == {
        "elsewhere": "running",
        "dead": "interrupted",
        "lives": "running",
        "done": "succeeded",
        "torn": "unreadable",
    }
    assert [entry.run_id for entry in list_runs(tmp_path)] == ["elsewhere", "dead", "lives", "done", "torn"]
    assert list_runs(tmp_path / "none") == []


def ended_runs(folder: Path, count: int) -> None:
    for number in range(count):
        journal = Journal.create(folder / f"run-{number}")
        for what in default_run():
            journal.append(what)
        journal.close()


def keep_time(path: Path, data: bytes) -> None:
    """Replace a file's content, of the same size, and keep its time."""
    status = path.stat()
    assert len(data) == status.st_size
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_list_opens_the_journal_of_an_ended_run_once(tmp_path: Path) -> None:
    ended_runs(tmp_path, 40)
    running = begun(tmp_path / "goes-on", gone_pid())
    first = list_runs(tmp_path)
    for number in range(40):
        journal = tmp_path / f"run-{number}" / EVENTS
        keep_time(journal, b"x" * journal.stat().st_size)
    assert list_runs(tmp_path) == first
    # A removal reads the journals.
    assert {entry.status for entry in read_runs(tmp_path)} == {"unreadable", "running"}
    running.append(RunEnded(Outcome.FAILED, "failed", False, 1.0))
    with (tmp_path / "run-3" / EVENTS).open("ab") as file:
        file.write(b"\n")
    again = {entry.run_id: entry for entry in list_runs(tmp_path)}
    assert again["goes-on"].status == "failed"
    assert again["run-3"].status == "unreadable"
    assert again["run-4"].ended_at is not None


def test_a_file_of_ended_runs_that_is_torn_or_hostile_changes_no_list(tmp_path: Path) -> None:
    ended_runs(tmp_path, 40)
    first = list_runs(tmp_path)
    path = tmp_path / ENDED_RUNS
    data = path.read_bytes()
    elsewhere = tmp_path / "elsewhere"
    forged = data.replace(b'"status":"succeeded"', b'"status":"forged"')
    assert forged != data
    elsewhere.write_bytes(forged)

    def folder() -> None:
        path.mkdir()
        (path / "full").touch()

    def of_another_user() -> None:
        path.write_bytes(elsewhere.read_bytes())
        path.chmod(0o666)

    hostile: list[Callable[[], object]] = [
        lambda: path.write_bytes(data[:-100]),
        lambda: path.write_bytes(data.replace(b'"pccpipe ', b'"pccpipe 9')),
        lambda: path.write_bytes(data.splitlines(keepends=True)[0] + b"[" * 2_000_000),
        lambda: path.symlink_to(elsewhere),
        lambda: os.mkfifo(path),
        of_another_user,
        folder,
    ]
    for make in hostile:
        path.unlink(missing_ok=True)
        make()
        assert list_runs(tmp_path) == first
    assert elsewhere.read_bytes() == forged


def test_a_journal_that_is_no_file_is_an_unreadable_run(tmp_path: Path) -> None:
    for name in ("pipe", "folder", ".hidden"):
        (tmp_path / name).mkdir()
    os.mkfifo(tmp_path / "pipe" / EVENTS)
    (tmp_path / "folder" / EVENTS).mkdir()
    (tmp_path / ".hidden" / EVENTS).touch()
    assert {entry.run_id: entry.status for entry in list_runs(tmp_path)} == {
        "pipe": "unreadable",
        "folder": "unreadable",
    }


def test_a_growing_journal_gives_each_event_once_and_a_half_line_once_it_is_whole(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "r")
    reader = GrowingJournal(tmp_path / "r")
    assert reader.read() == []
    events = [journal.append(StepStarted("a", "run")), journal.append(StepStarted("b", "run"))]
    assert [event.seq for event in reader.read()] == [1, 2]
    path = tmp_path / "r" / EVENTS
    line = path.read_bytes().splitlines(keepends=True)[0]
    with path.open("ab") as file:
        file.write(line[:20])
        file.flush()
        assert reader.read() == []
        file.write(line[20:])
    assert [event.what for event in reader.read()] == [events[0].what]
