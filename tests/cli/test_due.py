"""Runs that wait for a model: listed with their time, continued once by `resume --due`, and early by `resume`."""

from __future__ import annotations

import json
import shutil
import socket
import time
from pathlib import Path

import pytest

import pccpipe
from pccpipe.due import DueRun, continue_if_due
from pccpipe.errors import VmBusy
from pccpipe.record.codec import encode
from pccpipe.record.events import Event, StepEnded
from pccpipe.record.journal import read_events
from pccpipe.record.run_events import RunWaiting
from pccpipe.session.job import Caller
from tests.cli.command import Folder, finish, wait_until

TWO = """
    steps:
      - {id: first, run: echo first >>count}
      - {id: second, run: echo second >>count; sleep 1}
"""


def waiting(folder: Folder, run_id: str, due: float) -> Path:
    """Make the record of a run that waits for a model after its first step."""
    folder.pipeline(TWO)
    assert folder.do("run", "pipeline.yaml", "--run-id", run_id, "--local").code == 0
    record = folder.path / ".system/runs" / run_id
    events = list(read_events(record))
    (after,) = [
        at for at, event in enumerate(events) if isinstance(event.what, StepEnded) and event.what.step == "first"
    ]
    kept = events[: after + 1]
    kept.append(Event(kept[-1].seq + 1, time.time(), RunWaiting("second waits: answered 429 (rate limit)", due)))
    (record / "events.jsonl").write_bytes(b"".join(map(encode, kept)))
    (folder.path / "count").write_text("")
    return record


def test_a_run_that_waits_for_a_model_is_listed_and_shown_with_its_time(folder: Folder) -> None:
    record = waiting(folder, "r1", 4_000_000_000.0)
    listed = folder.do("runs").stdout
    assert "waiting_for_model" in listed
    assert "due 2096-10-02 07:06:40" in listed
    shown = folder.do("show", "r1").stdout
    assert "run r1 waiting_for_model: second waits: answered 429 (rate limit)" in shown
    assert "until 2096-10-02 07:06:40" in shown
    assert "pccpipe resume --due\n" in shown
    assert "is gone" not in shown
    state = json.loads(folder.do("show", "r1", "--json").stdout)
    assert (state["status"], state["due"]) == ("waiting_for_model", "2096-10-02T07:06:40.000+00:00")
    (entry,) = pccpipe.list_runs(runs_dir=record.parent)
    assert (entry.status, entry.due) == ("waiting_for_model", 4_000_000_000.0)


def test_only_runs_that_are_due_continue_and_any_by_name(folder: Folder) -> None:
    waiting(folder, "later", time.time() + 3600)
    early = waiting(folder, "now", time.time() - 1)
    done = folder.do("resume", "--due")
    assert done.code == 0, done.stdout + done.stderr
    assert "run now succeeded" in done.stdout
    assert "later" not in done.stdout
    assert (folder.path / "count").read_text() == "second\n"
    assert folder.do("resume", "--due").stdout == "no run in .system/runs is due\n"
    assert folder.do("resume", "later").code == 0
    assert pccpipe.get_run("now", runs_dir=early.parent).due is None


def test_two_at_once_continue_each_run_once(folder: Folder) -> None:
    for run_id in ("r1", "r2", "r3"):
        waiting(folder, run_id, time.time() - 1)
    both = [finish(process, 60) for process in [folder.start("resume", "--due") for _ in range(2)]]
    assert [done.code for done in both] == [0, 0], both
    assert (folder.path / "count").read_text() == "second\n" * 3
    assert sorted(run.status for run in pccpipe.list_runs(runs_dir=folder.path / ".system/runs")) == ["succeeded"] * 3


def test_a_run_that_another_process_continued_meanwhile_stays_as_it_is(folder: Folder) -> None:
    waits_again = waiting(folder, "r1", time.time() + 3600)
    ended = waiting(folder, "r2", time.time() - 1)
    assert folder.do("resume", "r2").code == 0
    caller = Caller(None, pccpipe.Cancel(), False, 0.0, {}, {}, {}, None)
    for record in (waits_again, ended):
        assert continue_if_due(record, caller) == DueRun(record.name)
    assert (folder.path / "count").read_text() == "second\n"


def test_a_run_that_cannot_continue_keeps_no_other_from_it(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = waiting(folder, "broken", time.time() - 5)
    (broken / "pipeline.yaml").write_text("nonsense")
    waiting(folder, "fine", time.time() - 1)
    done = folder.do("resume", "--due")
    assert done.code == 1
    assert "broken: " in done.stderr
    assert "run fine succeeded" in done.stdout
    waiting(folder, "again", time.time() - 1)
    monkeypatch.chdir(folder.path)
    heard: list[str] = []
    runs = pccpipe.resume_due(on_event=lambda run_id, event: heard.append(run_id))
    assert [(run.run_id, bool(run.error), run.result and run.result.status) for run in runs] == [
        ("broken", True, None),
        ("again", False, "succeeded"),
    ]
    assert set(heard) == {"again"}


def test_a_record_that_this_machine_did_not_run_is_not_continued(folder: Folder) -> None:
    """The authors of a repository may put a record there, with commands of theirs."""
    planted = waiting(folder, "planted", time.time() - 9)
    own = waiting(folder, "own", time.time() + 3600)
    lock = planted / "lock"
    for text in ("", "{}", json.dumps({"host": socket.gethostname()}), '{"machine": "0123"}', None):
        if text is None:
            lock.unlink()
            lock.symlink_to(own / "lock")
        else:
            lock.write_text(text)
        done = folder.do("resume", "--due")
        assert done.code == 1
        assert "planted: run planted: this machine did not run it last" in done.stderr
        assert "pccpipe resume planted" in done.stderr
    assert (folder.path / "count").read_text() == ""


def test_an_error_of_the_system_keeps_no_other_run_from_it(folder: Folder) -> None:
    broken = waiting(folder, "broken", time.time() - 9)
    waiting(folder, "fine", time.time() - 1)
    shutil.rmtree(broken / "logs")
    (broken / "logs").write_text("")
    done = folder.do("resume", "--due")
    assert done.code == 1
    assert "broken: " in done.stderr
    assert "run fine succeeded" in done.stdout


def test_a_run_stays_due_while_another_one_has_the_vm(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    due = time.time() - 1
    record = waiting(folder, "r1", due)
    monkeypatch.chdir(folder.path)

    def busy(*_: object) -> None:
        raise VmBusy("the VM is in use by run other", "wait")

    with monkeypatch.context() as patched:
        patched.setattr("pccpipe.executor.executor.execute", busy)
        for _ in range(2):
            (run,) = pccpipe.resume_due()
            assert isinstance(run.error, VmBusy)
            state = pccpipe.get_run("r1", runs_dir=record.parent)
            assert (state.status, state.due, state.message) == ("waiting_for_model", due, str(run.error.message))
    (run,) = pccpipe.resume_due()
    assert run.result
    assert run.result.status == "succeeded"
    assert (folder.path / "count").read_text() == "second\n"


def test_a_killed_continuation_is_no_longer_due_and_resumes_as_any_run(folder: Folder) -> None:
    record = waiting(folder, "r1", time.time() - 1)
    process = folder.start("resume", "--due")
    wait_until(lambda: "second" in (folder.path / "count").read_text())
    process.kill()
    process.communicate()
    assert "is due" in folder.do("resume", "--due").stdout
    assert "interrupted" in folder.do("runs").stdout
    assert folder.do("resume", "r1").code == 0
    assert (folder.path / "count").read_text() == "second\n"
    assert pccpipe.get_run("r1", runs_dir=record.parent).status == "succeeded"


def test_a_waiting_run_can_be_cancelled(folder: Folder) -> None:
    waiting(folder, "r1", time.time() + 3600)
    assert folder.do("cancel", "r1").code == 0
    assert "cancelled" in folder.do("runs").stdout
    assert (folder.path / "count").read_text() == ""


@pytest.mark.parametrize("arguments", [[], ["r1", "--due"], ["--due", "--accept-fallback", "x"]])
def test_a_wrong_call_says_what_to_give(folder: Folder, arguments: list[str]) -> None:
    done = folder.do("resume", *arguments)
    assert done.code == 2
    assert "name a run, or give --due" in done.stderr
