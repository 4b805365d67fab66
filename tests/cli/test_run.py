from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.command import ROOT, Folder, wait_until


def state(folder: Folder, run_id: str = "r1") -> dict[str, object]:
    loaded: dict[str, object] = json.loads((folder.path / ".system/runs" / run_id / "run.json").read_text())
    return loaded


def happened(folder: Folder, text: str, run_id: str = "r1") -> bool:
    events = folder.path / ".system/runs" / run_id / "events.jsonl"
    return events.exists() and text in events.read_text()


def test_a_run_that_succeeds_exits_with_0_and_says_where_its_record_is(folder: Folder) -> None:
    folder.pipeline("steps: [{id: hello, run: echo hello there}]")
    done = folder.do("run", "pipeline.yaml", "--run-id", "r1")
    assert (done.code, done.stderr) == (0, "")
    assert "hello | hello there\n" in done.stdout
    assert done.stdout.endswith("record: .system/runs/r1\n")
    assert state(folder)["outcome"] == "succeeded"


def test_a_failing_step_exits_with_1_and_shows_its_last_lines_and_log(folder: Folder) -> None:
    folder.pipeline("steps: [{id: bad, run: 'echo the reason >&2; exit 7'}]")
    done = folder.do("run", "pipeline.yaml", "--run-id", "r1")
    assert done.code == 1
    end = done.stdout.partition("\n\n")[2]
    assert "bad failed: exit code 7\n  | the reason\n  logs: .system/runs/r1/logs/" in end
    log = re.search(r"\n +(\S+stderr\.log)", end)
    assert log
    assert (folder.path / log[1]).read_text() == "the reason\n"


def test_an_unavailable_place_exits_with_3_and_its_own_words(folder: Folder) -> None:
    (folder.path / "key").write_text("no key")
    (folder.path / "pccpipe.yaml").write_text(
        "id: p\nisolation_mode: vm\nvm: {external_ip: 127.0.0.1, port: 1, user: u, key_path: key}\n"
    )
    folder.pipeline("steps: [{id: far, on: vm, run: 'true'}]")
    done = folder.do("run", "pipeline.yaml", "--run-id", "r1")
    assert done.code == 3, done.stdout + done.stderr
    assert "far unavailable: the VM refused the connection (ssh_refused)" in done.stdout


def test_a_downgrade_exits_with_4_only_with_the_option(folder: Folder) -> None:
    (folder.path / "key").write_text("no key")
    (folder.path / "pccpipe.yaml").write_text(
        "id: p\nisolation_mode: vm\nvm: {external_ip: 127.0.0.1, port: 1, user: u, key_path: key}\n"
    )
    folder.pipeline("steps: [{id: far, on: vm, run: 'true', fallback: {on: local}}]")
    assert folder.do("run", "pipeline.yaml", "--run-id", "r1").code == 0
    done = folder.do("run", "pipeline.yaml", "--run-id", "r2", "--fail-on-downgrade")
    assert done.code == 4
    assert "DOWNGRADED far: asked for vm, had local: the VM refused the connection (ssh_refused)" in done.stdout
    assert folder.do("run", "pipeline.yaml", "--run-id", "r3", "--no-fallback").code == 3


def test_a_run_id_that_is_taken_is_refused(folder: Folder) -> None:
    folder.pipeline("steps: [{id: a, run: 'true'}]")
    assert folder.do("run", "pipeline.yaml", "--run-id", "r1").code == 0
    before = (folder.path / ".system/runs/r1/events.jsonl").read_bytes()
    done = folder.do("run", "pipeline.yaml", "--run-id", "r1")
    assert done.code == 2
    assert "run r1 exists already" in done.stderr
    assert (folder.path / ".system/runs/r1/events.jsonl").read_bytes() == before


def test_without_a_run_id_a_new_one_is_made(folder: Folder) -> None:
    folder.pipeline("steps: [{id: a, run: 'true'}]")
    for _ in range(2):
        assert folder.do("run", "pipeline.yaml").code == 0
    ids = [path.name for path in (folder.path / ".system/runs").iterdir()]
    assert len(ids) == 2
    assert all(re.fullmatch("[0-9a-z]{8}", run_id) for run_id in ids)


def test_jsonl_is_the_journal_and_the_output(folder: Folder) -> None:
    folder.pipeline("steps: [{id: a, run: echo hi}]")
    done = folder.do("run", "pipeline.yaml", "--run-id", "r1", "--format", "jsonl")
    lines = done.stdout.splitlines()
    kept = [line for line in lines if json.loads(line)["event"] != "output"]
    assert "\n".join(kept) + "\n" == (folder.path / ".system/runs/r1/events.jsonl").read_text()
    assert [json.loads(line)["text"] for line in lines if line not in kept] == ["hi\n"]


def test_inputs_and_workspace_reach_the_steps(folder: Folder) -> None:
    (folder.path / "w").mkdir()
    folder.pipeline("inputs: {x: {type: string}}\nsteps: [{id: a, run: 'echo ${{ inputs.x }} > out'}]")
    done = folder.do("run", "pipeline.yaml", "--run-id", "r1", "--workspace", "w", "--input", "x=a=b c")
    assert done.code == 0
    assert (folder.path / "w/out").read_text() == "a=b c\n"


SLEEP = """
steps: [{id: long, run: "echo begun; sleep 60"}]
always: [{id: tidy, run: echo tidied}]
"""


@pytest.mark.parametrize(
    ("number", "code", "by", "words"),
    [
        (signal.SIGINT, 130, "INT", "Ctrl-C (SIGINT)"),
        (signal.SIGTERM, 143, "TERM", "SIGTERM"),
        (signal.SIGHUP, 130, "HUP", "SIGHUP"),
    ],
)
def test_a_signal_ends_the_step_runs_always_and_exits_with_its_status(
    folder: Folder, number: signal.Signals, code: int, by: str, words: str
) -> None:
    folder.pipeline(SLEEP)
    done = folder.signalled(
        "run", "pipeline.yaml", "--run-id", "r1", signals=(number,), when=lambda: happened(folder, "command_started")
    )
    assert done.code == code
    assert "tidy | tidied" in done.stdout
    assert state(folder)["cancelled_by"] == by
    assert re.search(rf"^run r1 cancelled after [0-9.]+s by {re.escape(words)}$", done.stdout, re.MULTILINE)


def test_a_second_interrupt_cuts_the_grace(folder: Folder) -> None:
    folder.pipeline("""
        steps: [{id: stubborn, run: "trap '' TERM INT; echo begun; while :; do sleep 1; done"}]
        always: [{id: tidy, run: echo tidied}]
    """)
    began = time.monotonic()
    done = folder.signalled(
        "run",
        "pipeline.yaml",
        "--run-id",
        "r1",
        signals=(signal.SIGINT, signal.SIGINT),
        when=lambda: happened(folder, "command_started"),
    )
    assert done.code == 130
    assert time.monotonic() - began < 9
    assert "tidy | tidied" in done.stdout


def test_a_signal_that_the_caller_ignores_stays_ignored(folder: Folder) -> None:
    folder.pipeline("steps: [{id: a, run: 'echo begun; sleep 1.5'}]")
    command = f"trap '' HUP; exec {sys.executable} -m pccpipe run pipeline.yaml --run-id r1"
    process = subprocess.Popen(
        ["sh", "-c", command], cwd=folder.path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL
    )
    wait_until(lambda: happened(folder, "command_started"))
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=30) == 0


def test_a_reader_that_goes_away_does_not_end_the_run(folder: Folder) -> None:
    folder.pipeline("steps: [{id: a, run: 'for i in 1 2 3 4 5; do echo $i; sleep 0.1; done; echo done > finished'}]")
    process = folder.start("run", "pipeline.yaml", "--run-id", "r1")
    assert process.stdout
    assert process.stderr
    with process.stderr:
        process.stdout.close()
        process.wait(timeout=30)
    assert (folder.path / "finished").exists()
    assert state(folder)["outcome"] == "succeeded"


def test_on_a_terminal_it_is_live_and_leaves_the_tree(folder: Folder) -> None:
    folder.pipeline("steps: [{id: hello, run: 'echo hi; sleep 0.3'}]")
    output = _in_terminal(folder, "run", "pipeline.yaml", "--run-id", "r1")
    assert "\x1b[" in output
    assert "✔" in output
    assert output.rstrip().endswith("record: .system/runs/r1")


def _in_terminal(folder: Folder, *arguments: str) -> str:
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(folder.path)
        os.environ.update({"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "PYTHONUTF8": "1"})
        os.execv(sys.executable, [sys.executable, "-m", "pccpipe", *arguments])
    output, until = b"", time.monotonic() + 30
    while time.monotonic() < until:
        if select.select([fd], [], [], 0.5)[0]:
            try:
                output += os.read(fd, 65536)
            except OSError:
                break
    _, status = os.waitpid(pid, 0)
    os.close(fd)
    assert os.waitstatus_to_exitcode(status) == 0, output.decode()
    return output.decode()


def test_an_error_of_its_own_keeps_the_traceback_in_the_runs_folder(folder: Folder) -> None:
    folder.pipeline("steps: [{id: a, run: 'true'}]")
    code = (
        "import sys, pccpipe.executor.executor as lib\n"
        "def broken(parts, inputs): raise RuntimeError('a bug')\n"
        "lib.execute = broken\n"
        "sys.argv = ['pccpipe', 'run', 'pipeline.yaml', '--run-id', 'r1']\n"
        "from pccpipe.cli.main import main\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder.path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 70
    assert "Traceback" not in done.stderr
    (kept,) = (folder.path / ".system/runs/r1").glob("pccpipe-traceback-*.txt")
    assert done.stderr.splitlines()[-1] == f"traceback: {kept.relative_to(folder.path)}" or str(kept) in done.stderr
    assert Path(kept).read_text().rstrip().endswith("RuntimeError: a bug")


def test_a_vm_that_the_run_never_reached_is_not_waited_for_because_a_step_ran_here(folder: Folder) -> None:
    (folder.path / "pccpipe.yaml").write_text(
        "id: p\nisolation_mode: vm\nvm: {external_ip: 127.0.0.1, port: 1, user: u}\n"
    )
    folder.pipeline("""
        steps:
          - {id: near, run: 'true'}
          - {id: far, on: vm, run: 'true', fallback: {on: local}}
    """)
    done = folder.do("run", "pipeline.yaml", "--run-id", "r", limit=20)
    assert done.code == 0, done
    assert (
        "far DOWNGRADED: asked for vm, goes on with local: the VM refused the connection (ssh_refused)" in done.stdout
    )
