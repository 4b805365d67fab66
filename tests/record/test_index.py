from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

from pccpipe.layout import EVENTS, LOCK
from pccpipe.outcome import IsolationMode
from pccpipe.record.events import RunStarted, StepStarted, Warned
from pccpipe.record.index import list_runs
from pccpipe.record.journal import Journal
from pccpipe.record.lock import RunLock
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
