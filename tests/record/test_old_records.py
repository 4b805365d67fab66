"""Records of earlier versions stay readable: `old/early` is from a week before `old/later`, and both precede 0.1.0."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pccpipe
from pccpipe.layout import EVENTS, LOCK, RUN_JSON, RUNS
from pccpipe.outcome import Outcome, Place, Reason
from pccpipe.record.events import StepEnded
from pccpipe.record.index import list_runs
from pccpipe.record.journal import read_events
from pccpipe.record.state import load_state, state_text
from pccpipe.values import Json

OLD = Path(__file__).with_name("old")
VERSIONS = sorted(folder.name for folder in OLD.iterdir())


class OldProject:
    """A project's folder with the records that an earlier version wrote there."""

    def __init__(self, folder: Path, version: str) -> None:
        self.code = folder / "code"
        self.runs = self.code / RUNS
        self.keeps_what_was_sent = version != "early"
        """In the form that this version reads; the early one kept a folder of files."""
        shutil.copytree(OLD / version, self.runs)
        (folder / "pccpipe.yaml").write_text("id: older\nisolation_mode: container\n")
        (self.code / "a.txt").write_text("one\n")
        (self.code / "notes.txt").write_text("note0\n")
        for name in (EVENTS, RUN_JSON):
            for file in self.runs.glob(f"*/{name}"):
                file.write_text(file.read_text().replace("/FOLDER", str(folder)))
        for record in self.runs.iterdir():
            # A lock that no process holds, of this machine.
            (record / LOCK).touch()

    def pccpipe(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "pccpipe", *words],
            cwd=self.code,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(params=VERSIONS)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> OldProject:
    return OldProject(tmp_path, request.param)


def has_all(new: Json, of: Json) -> bool:
    """Compare two values: mappings of the new one may have more keys."""
    if isinstance(of, dict):
        return isinstance(new, dict) and all(key in new and has_all(new[key], of[key]) for key in of)
    if isinstance(of, list):
        return isinstance(new, list) and len(new) == len(of) and all(map(has_all, new, of))
    return new == of


@pytest.mark.parametrize("run_id", ["ended", "waiting"])
def test_the_state_of_an_old_run_has_all_that_its_run_json_had(old: OldProject, run_id: str) -> None:
    record = old.runs / run_id
    assert has_all(load_state(record).to_json(), json.loads((record / RUN_JSON).read_text()))


@pytest.mark.parametrize("run_id", ["ended", "waiting"])
def test_run_json_is_byte_for_byte_what_the_version_before_wrote(tmp_path: Path, run_id: str) -> None:
    record = OldProject(tmp_path, "later").runs / run_id
    lines = state_text(load_state(record)).splitlines(keepends=True)
    names = ("format", "code", "agent_changes", "due", "model")
    added = [line for line in lines if line.startswith(tuple(f' "{name}": ' for name in names))]
    assert [line.split()[-1] for line in added] == ["1,", "null,", "[],", "null,", "null,"]
    text = "".join(line for line in lines if line not in added).replace(', "above": {}}', "}")
    for gained in (', "background": false, "ready": false, "services": []', ', "exports": []'):
        text = text.replace(gained, "")
    assert text == (record / RUN_JSON).read_text()


def test_every_event_of_an_old_run_is_read(old: OldProject) -> None:
    for record in old.runs.iterdir():
        assert len(list(read_events(record))) == (record / EVENTS).read_bytes().count(b"\n")


def test_an_old_run_that_ended_has_its_steps(old: OldProject) -> None:
    state = load_state(old.runs / "ended")
    assert (state.outcome, state.downgraded, state.unread) == (Outcome.SUCCEEDED, True, 0)
    boxed = state.steps["boxed"]
    assert [attempt.outcome for attempt in boxed.attempts] == [Outcome.UNAVAILABLE, Outcome.SUCCEEDED]
    assert boxed.had
    assert (boxed.asked, boxed.had.place) == (Place.CONTAINER, Place.LOCAL)
    assert [down.reason for down in state.downgrades] == [Reason.ENGINE_MISSING]
    assert isinstance(boxed.ended, StepEnded)
    assert (boxed.ended.result, boxed.ended.result_path) == ({"answer": 42}, "results/boxed.json")
    assert [state.steps[f"loop[{number}].check"].outcome for number in (1, 2)] == [Outcome.FAILED, Outcome.SUCCEEDED]
    flaky = state.steps["flaky"]
    assert (flaky.outcome, flaky.ignored, len(flaky.attempts)) == (Outcome.FAILED, True, 2)


def test_old_runs_are_listed_with_their_status(old: OldProject) -> None:
    statuses = {entry.run_id: entry.status for entry in list_runs(old.runs)}
    assert statuses == {"ended": "succeeded", "waiting": "waiting_for_input", "killed": "interrupted"}
    assert {line.split()[0] for line in old.pccpipe("runs").splitlines()} == set(statuses)


def test_the_commands_show_an_old_run(old: OldProject) -> None:
    shown = old.pccpipe("show", "ended")
    assert "asked for: container" in shown
    assert "results/boxed.json" in shown
    assert "the staging database" in old.pccpipe("show", "waiting")
    assert json.loads(old.pccpipe("show", "ended", "--json"))["run_id"] == "ended"
    assert "working" in old.pccpipe("logs", "ended", "loop[1].work")


def test_an_old_run_that_ended_is_not_resumed(old: OldProject) -> None:
    with pytest.raises(pccpipe.UsageError, match="has ended: succeeded"):
        pccpipe.resume("ended", runs_dir=old.runs)


def test_an_old_run_whose_process_was_killed_is_resumed(old: OldProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(old.code)
    result = pccpipe.resume("killed", runs_dir=old.runs)
    steps = result.state.steps
    assert steps["slow"].outcome is Outcome.SUCCEEDED, result.message
    starts = [line for line in (old.runs / "killed" / EVENTS).read_text().splitlines() if '"command_started"' in line]
    assert len(starts) == 2, "a command that had ended ran again"
    if old.keeps_what_was_sent:
        assert result.outcome is Outcome.SUCCEEDED
        assert "+done" in (old.runs / "killed" / "diff.patch").read_text()
    else:
        assert steps["changes"].message.startswith("there is nothing to compare with")


def test_a_question_of_an_old_run_is_answered(old: OldProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(old.code)
    assert not pccpipe.answer("waiting", {"db_host": "db-1"}, runs_dir=old.runs).open_questions


def test_gc_reads_old_runs(old: OldProject) -> None:
    said = old.pccpipe("gc", "--dry-run", "--discard", "killed")
    assert "run killed" in said
    assert "would go" in said
