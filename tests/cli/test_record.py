"""validate, plan, runs, show, logs, schema."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.cli.command import ROOT, Folder, finish, wait_until

TWO_STREAMS = """
steps:
  - {id: first, run: "echo one; echo one-err >&2"}
  - id: again
    repeat: {max: 2}
    steps: [{id: inner, run: 'printf "\\\\033[2Jraw\\\\377"'}]
"""


@pytest.fixture
def ran(folder: Folder) -> Folder:
    """Make a folder with a finished run."""
    folder.pipeline(TWO_STREAMS)
    assert folder.do("run", "pipeline.yaml", "--run-id", "r1").code == 0
    return folder


def test_runs_lists_the_newest_first(ran: Folder) -> None:
    assert ran.do("run", "pipeline.yaml", "--run-id", "r2").code == 0
    lines = ran.do("runs").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["r2", "r1"]
    assert all("succeeded" in line and "test" in line for line in lines)


def test_runs_of_an_empty_folder_says_so(folder: Folder) -> None:
    assert folder.do("runs").stdout == "no runs in .system/runs\n"


def test_a_run_whose_process_was_killed_is_interrupted_and_not_running(folder: Folder) -> None:
    folder.pipeline("steps: [{id: a, run: 'sleep 3'}]")
    process = folder.start("run", "pipeline.yaml", "--run-id", "r1")
    events = folder.path / ".system/runs/r1/events.jsonl"
    wait_until(lambda: events.exists() and "command_started" in events.read_text())
    assert "running" in folder.do("runs").stdout
    process.send_signal(signal.SIGKILL)
    finish(process, 10)
    assert "interrupted" in folder.do("runs").stdout
    first = folder.do("show", "r1").stdout.splitlines()[0]
    words = f"run r1 interrupted (its process {process.pid} ended unexpectedly). Continue: pccpipe resume r1"
    assert first == words
    kept = folder.do("gc").stdout
    # Its command may live for a moment longer, or have ended with it.
    may_say = ("and can be resumed (pccpipe resume r1)", "of run r1", "nothing of any run is there")
    assert any(words in kept for words in may_say)


def test_show_shows_the_run_and_json_is_run_json(ran: Folder) -> None:
    shown = ran.do("show", "r1")
    assert shown.code == 0
    assert shown.stdout.startswith("run r1 succeeded in ")
    assert "had: local, user " in shown.stdout
    data = json.loads(ran.do("show", "r1", "--json").stdout)
    assert data == json.loads((ran.path / ".system/runs/r1/run.json").read_text())


def test_show_of_an_unknown_run_names_the_nearest(ran: Folder) -> None:
    done = ran.do("show", "r11")
    assert done.code == 2
    assert "did you mean `r1`?" in done.stderr


def test_the_logs_of_a_step_are_printed_unchanged(ran: Folder) -> None:
    done = ran.do("logs", "r1", "first")
    assert (done.stdout, done.stderr) == ("one\n", "one-err\n")
    assert ran.do("logs", "r1", "first", "--stderr").stdout == "one-err\n"
    assert ran.do("logs", "r1", "first", "--stdout").stderr == ""


def test_the_logs_of_a_step_in_rounds_have_headings(ran: Folder) -> None:
    raw = subprocess.run(
        [sys.executable, "-m", "pccpipe", "logs", "r1", "inner"],
        cwd=ran.path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
        timeout=30,
    ).stdout
    assert b"==> again[1].inner, attempt 1, stdout <==\n\x1b[2Jraw\xff" in raw
    assert b"==> again[2].inner, attempt 1, stdout <==\n\x1b[2Jraw\xff" in raw
    assert ran.do("logs", "r1", "first", "--stdout").stdout == "one\n"


def test_logs_of_an_unknown_step_names_the_nearest(ran: Folder) -> None:
    done = ran.do("logs", "r1", "frist")
    assert done.code == 2
    assert "did you mean `first`?" in done.stderr


def test_logs_can_be_followed_to_the_runs_end(folder: Folder) -> None:
    folder.pipeline("steps: [{id: a, run: 'for i in 1 2 3; do echo line $i; sleep 0.4; done'}, {id: b, run: echo b}]")
    running = folder.start("run", "pipeline.yaml", "--run-id", "r1")
    events = folder.path / ".system/runs/r1/events.jsonl"
    wait_until(lambda: events.exists() and "command_started" in events.read_text())
    done = folder.do("logs", "r1", "-f")
    finish(running, 30)
    assert done.code == 0
    assert [line for line in done.stdout.splitlines() if line and "==>" not in line] == [
        "line 1",
        "line 2",
        "line 3",
        "b",
    ]


def test_validate_names_valid_files_and_each_problem_of_the_others(folder: Folder) -> None:
    folder.pipeline("steps: [{id: a, run: 'true'}]", "good.yaml")
    folder.pipeline("steps: [{id: a, runn: 'true'}]", "bad.yaml")
    (folder.path / "project.yaml").write_text("id: p\nisolation_mode: locall\n")
    done = folder.do("validate", "good.yaml", "bad.yaml", "none.yaml", "project.yaml")
    assert done.code == 2
    assert done.stdout == "good.yaml: fine, pipeline test, 1 steps at the top\n"
    assert "did you mean `run`?" in done.stderr
    assert "there is no file none.yaml" in done.stderr
    assert "did you mean `local`?" in done.stderr
    assert folder.do("validate", "good.yaml").code == 0


@pytest.mark.parametrize("name", ["pipeline", "project", "event", "run", "builder-result", "reviewer-result"])
def test_schema_prints_the_published_file(folder: Folder, name: str) -> None:
    assert folder.do("schema", name).stdout == (ROOT / f"schemas/{name}.schema.json").read_text()


def test_plan_says_what_would_run_where_and_makes_nothing(folder: Folder) -> None:
    folder.pipeline("inputs: {x: {type: string}}\nsteps: [{id: a, on: vm, run: 'echo ${{ inputs.x }}'}]")
    done = folder.do("plan", "pipeline.yaml", "--input", "x=two words")
    assert done.code == 0
    assert "a: run on this machine (asks for vm)\n      $ echo 'two words'\n" in done.stdout
    assert "there is no project file" in done.stdout
    assert not (folder.path / ".system").exists()
