"""What the command prints about errors: messages, exit statuses, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import ROOT, Folder, finish


def test_the_version_is_printed_without_loading_anything(folder: Folder) -> None:
    done = folder.do("--version")
    assert done.code == 0
    assert done.stdout.startswith("pccpipe 0.")
    code = "import sys; sys.argv[1:] = ['--version']; from pccpipe.cli.main import main; main(); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT)}
    ).stdout.split()
    assert not {"click", "rich", "paramiko", "docker", "jinja2", "yaml", "jsonschema"} & set(loaded)


@pytest.mark.parametrize("command", ["run", "validate", "plan", "runs", "show", "logs", "schema"])
def test_no_command_loads_modules_that_only_a_remote_or_live_run_needs(command: str) -> None:
    code = f"import sys; sys.argv = ['pccpipe', '{command}', '--help']\n" + (
        "from pccpipe.cli.main import main\ntry:\n main()\nexcept SystemExit: print('LOADED', *sys.modules)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT)}
    ).stdout.partition("LOADED")[2]
    assert shown
    assert not {"rich", "paramiko", "docker", "jinja2", "yaml", "jsonschema", "sh"} & set(shown.split())


def test_without_arguments_it_names_the_two_most_useful_commands(folder: Folder) -> None:
    done = folder.do()
    assert done.code == 2
    assert "pccpipe plan PIPELINE" in done.stdout
    assert "pccpipe run PIPELINE" in done.stdout
    assert len(done.stdout.splitlines()) < 10


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rnu", "x"], "Did you mean 'run'?"),
        (["run", "--inptu", "a=b", "x.yaml"], "--input"),
        (["run"], "PIPELINE"),
        (["run", "none.yaml"], "there is no file none.yaml"),
        (["run", "p.yaml", "--input", "x"], "--input 'x' is not NAME=VALUE"),
        (["run", "p.yaml", "--input", "greeting=a", "--input", "greeting=b"], "the input `greeting` is given twice"),
        (["run", "p.yaml", "--input", "gretting=x"], "did you mean `greeting`?"),
        (["run", "p.yaml", "--run-id", "a/b"], "invalid run id 'a/b'"),
        (["run", "p.yaml", "--run-id", "../x"], "invalid run id '../x'"),
        (["run", "p.yaml", "--run-id", ""], "invalid run id ''"),
        (["run", "p.yaml", "--project", "none.yaml"], "there is no file none.yaml"),
        (["run", "p.yaml", "--workspace", "none"], "none is not a folder"),
        (["run", "p.yaml", "--format", "html"], "'html' is not one of"),
        (["plan", "p.yaml", "--input", "gretting=x"], "did you mean `greeting`?"),
        (["validate", "none.yaml"], "there is no file none.yaml"),
        (["show", "none"], "there is no run 'none' in .system/runs"),
        (["show", "../x"], "there is no run '../x'"),
        (["logs", "none"], "there is no run 'none' in .system/runs"),
        (["schema", "pipline"], "'pipline' is not one of"),
    ],
)
def test_wrong_usage_is_one_clear_message_and_status_2(folder: Folder, arguments: list[str], says: str) -> None:
    folder.pipeline("inputs: {greeting: {type: string, default: hi}}\nsteps: [{id: a, run: 'true'}]\n", "p.yaml")
    done = folder.do(*arguments)
    assert done.code == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) <= 6
    assert not (folder.path / ".system").exists()


def test_a_broken_pipeline_reports_all_problems_and_makes_nothing(folder: Folder) -> None:
    path = folder.pipeline("stepps: []\nsteps: [{id: a, run: 'true', onn: vm}]\n")
    for command in ("run", "plan", "validate"):
        done = folder.do(command, path)
        assert done.code == 2
        assert f"{path}:3:1:" in done.stderr
        assert "did you mean `steps`?" in done.stderr
        assert "did you mean `on`?" in done.stderr
        assert "2 problems" in done.stderr
    assert not (folder.path / ".system").exists()


def test_a_reader_that_goes_away_is_not_an_error(folder: Folder) -> None:
    process = folder.start("schema", "pipeline")
    assert process.stdout
    process.stdout.close()
    process.wait(timeout=30)
    assert process.stderr
    assert process.stderr.read() == ""


def test_an_internal_error_is_one_line_and_a_traceback_in_a_file(folder: Folder, tmp_path: Path) -> None:
    code = (
        "import sys, pccpipe.data_files as s\n"
        "def broken(name): raise RuntimeError('a bug')\n"
        "s.schema_text = broken\n"
        "sys.argv = ['pccpipe', 'schema']\n"
        "from pccpipe.cli.main import main\nmain()"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )
    done = finish(process, 30)
    assert done.code == 70
    first, second = done.stderr.splitlines()
    assert first == "pccpipe: internal error: RuntimeError: a bug"
    kept = Path(second.removeprefix("traceback: "))
    assert "RuntimeError: a bug" in kept.read_text()
    assert kept.stat().st_mode & 0o077 == 0


def test_an_error_shows_escapes_instead_of_obeying_them(folder: Folder) -> None:
    done = folder.do("validate", "no\x1b[2J.yaml")
    assert done.code == 2
    assert "\x1b" not in done.stderr
    assert "no\\x1b[2J.yaml" in done.stderr
