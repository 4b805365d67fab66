"""Messages about failures, each in the situation where people read it."""

from __future__ import annotations

import getpass
import http.server
import re
import shlex
import socket
import threading

import pytest

from tests.cli.command import Folder, finish, wait_until


@pytest.mark.parametrize("asked", ["version", "help"])
def test_what_people_type_before_they_know_the_options_works(folder: Folder, asked: str) -> None:
    done, option = folder.do(asked), folder.do(f"--{asked}")
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout == option.stdout


def test_help_explains_a_command_and_names_the_nearest(folder: Folder) -> None:
    done = folder.do("help", "logs")
    assert done.code == 0
    assert done.stdout == folder.do("logs", "--help").stdout
    wrong = folder.do("help", "resum")
    assert wrong.code == 2
    assert "did you mean `resume`?" in wrong.stderr


SITUATIONS = {
    "a step": "steps: [{id: a, run: 'echo the reason; exit 3'}]",
    "a leg of a matrix": "steps: [{id: unit, matrix: {v: ['1.5 x']}, run: 'echo the reason; exit 3'}]",
    "a round of a repeat": "steps: [{id: it, repeat: {max: 2}, steps: [{id: a, run: 'echo the reason; exit 3'}]}]",
    "the last round's test, which is ignored": """
steps:
  - id: it
    repeat: {max: 2, until: "steps.review.result == 1"}
    steps:
      - {id: build, run: echo built}
      - {id: test, run: 'echo the reason; exit 3', continue_on_error: true}
      - {id: review, if: steps.test.succeeded, run: "true", result: {path: r.json}}
""",
    "the step that has a log": """
steps:
  - id: both
    parallel:
      - {id: silent, run: "exit 3"}
      - {id: loud, run: "echo the reason; exit 3"}
""",
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_to_see_why_names_a_command_that_prints_the_reason(folder: Folder, situation: str) -> None:
    folder.pipeline(SITUATIONS[situation])
    ran = folder.do("run", "pipeline.yaml", "--run-id", "r1")
    assert ran.code == 1, ran.stderr
    for text in (ran.stdout, folder.do("show", "r1").stdout):
        [command] = re.findall("^to see why: pccpipe (.*)$", text, re.MULTILINE)
        assert folder.do(*shlex.split(command)).stdout == "the reason\n"


def test_a_command_to_see_why_works_with_records_elsewhere(folder: Folder) -> None:
    folder.pipeline(SITUATIONS["a step"])
    ran = folder.do("run", "pipeline.yaml", "--run-id", "r1", "--runs-dir", "other runs")
    [command] = re.findall("^to see why: pccpipe (.*)$", ran.stdout, re.MULTILINE)
    assert folder.do(*shlex.split(command)).stdout == "the reason\n"


def test_no_command_is_named_if_all_logs_are_empty(folder: Folder) -> None:
    folder.pipeline("steps: [{id: a, run: exit 3}]")
    assert "to see why" not in folder.do("run", "pipeline.yaml", "--run-id", "r1").stdout
    silent = folder.do("logs", "r1", "a")
    assert (silent.code, silent.stdout, silent.stderr) == (0, "", "pccpipe: a wrote nothing\n")


def test_the_logs_of_a_group_are_those_of_the_steps_inside(folder: Folder) -> None:
    folder.pipeline("steps: [{id: it, repeat: {max: 2}, steps: [{id: a, run: 'echo in ${{ iteration }}'}]}]")
    assert folder.do("run", "pipeline.yaml", "--run-id", "r1").code == 0
    printed = folder.do("logs", "r1", "it").stdout
    assert "==> it[1].a, attempt 1, stdout <==\nin 1\n" in printed
    assert "==> it[2].a, attempt 1, stdout <==\nin 2\n" in printed


def test_a_cancelled_run_says_who_cancelled_it_and_how(folder: Folder) -> None:
    folder.pipeline("steps: [{id: a, run: 'echo begun; sleep 60'}]")
    process = folder.start("run", "pipeline.yaml", "--run-id", "r1")
    journal = folder.path / ".system/runs/r1/events.jsonl"
    wait_until(lambda: journal.exists() and "command_started" in journal.read_text())
    assert folder.do("cancel", "r1").code == 0
    ended = finish(process, 30).stdout
    who = f"{getpass.getuser()}@{socket.gethostname()}"
    words = rf"^run r1 cancelled after [0-9.]+s by {re.escape(who)} with `pccpipe cancel`$"
    assert re.search(words, ended, re.MULTILINE)
    assert re.search(words, folder.do("show", "r1").stdout, re.MULTILINE)


class Overloaded(http.server.BaseHTTPRequestHandler):
    """Answer like a model's API that is down."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(500)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


CALLS = """
import json, os, urllib.error, urllib.request
for _ in range(5):
    asked = urllib.request.Request(
        os.environ["PCC_PROXY_URL"] + "/responses",
        json.dumps({"model": "m", "input": "x"}).encode(),
        {"authorization": "Bearer " + os.environ["KEY"], "content-type": "application/json"},
    )
    try:
        urllib.request.urlopen(asked)
    except urllib.error.HTTPError as error:
        print(error.code)
raise SystemExit(1)
"""


def test_an_agent_whose_models_api_is_down_says_so_with_step_and_round(folder: Folder) -> None:
    (folder.path / "agent.py").write_text(CALLS)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Overloaded) as api:
        threading.Thread(target=api.serve_forever, daemon=True).start()
        folder.pipeline(f"""
            secrets: {{KEY: {{from: env, via: proxy, upstream: "http://127.0.0.1:{api.server_port}/v1"}}}}
            steps:
              - id: iterate
                fails_as: not_approved
                repeat: {{max: 2}}
                steps: [{{id: build, run: python3 agent.py, secrets: [KEY]}}]
        """)
        done = folder.do("run", "pipeline.yaml", "--run-id", "r1", env={"KEY": "sk-" + "0123456789" * 3})
        api.shutdown()
    words = "build failed in round 1: the model's API answered 500, 5 times in a row (exit code 1)"
    ends = rf"^run r1 failed .*: {re.escape(words)} \(model_unavailable\)$"
    assert re.search(ends, done.stdout, re.MULTILINE), done.stdout


def test_an_agents_answer_in_prose_is_quoted(folder: Folder) -> None:
    folder.pipeline("""
        steps: [{id: a, run: 'echo "I have fixed it, all good" >"$PCC_OUT/r.json"', result: {path: r.json}}]
    """)
    done = folder.do("run", "pipeline.yaml", "--run-id", "r1")
    assert 'so there is no result. It says: "I have fixed it, all good"' in done.stdout


def test_files_that_exist_only_in_the_runs_copy_are_named_with_their_size(folder: Folder) -> None:
    (folder.path / "ws").mkdir()
    folder.pipeline("steps: [{id: up, upload: workspace}, {id: a, run: 'head -c 3000000 /dev/zero >made'}]")
    done = folder.do("run", "pipeline.yaml", "--run-id", "r1", "--workspace", "ws")
    kept = folder.path / ".system/runs/r1/workspace"
    assert f"files that this run changed exist only in {kept} (3.0 MB)" in done.stdout
    assert (kept / "made").stat().st_size == 3_000_000


def test_a_red_baseline_says_what_failed_and_how_often(folder: Folder) -> None:
    folder.pipeline("""
        steps:
          - id: baseline
            name: the project's tests before any change
            run: echo red; exit 1
            retry: {attempts: 2, backoff: 0s}
            fails_as: baseline_failed
    """)
    done = folder.do("run", "pipeline.yaml", "--run-id", "r1")
    assert "baseline (the project's tests before any change) failed: exit code 1, in 2 attempts" in done.stdout
    assert re.search(r"^run r1 failed \(baseline_failed\) .*: baseline failed: exit code 1$", done.stdout, re.MULTILINE)


def test_a_place_without_a_known_fix_leads_to_the_doctor(folder: Folder) -> None:
    (folder.path / "pccpipe.yaml").write_text(
        "id: p\nisolation_mode: vm\nvm: {external_ip: no-such-host.invalid, user: u}\n"
    )
    folder.pipeline("steps: [{id: a, on: vm, run: 'true'}]")
    done = folder.do("run", "pipeline.yaml", "--run-id", "r1")
    assert "a unavailable: the VM's name is unknown (ssh_name_unknown)\n" in done.stdout
    assert "\n  next: pccpipe doctor\n" in done.stdout
    assert folder.do("gc").stderr.startswith("pccpipe: the VM's name is unknown (ssh_name_unknown): no-such-host")
    report = folder.do("doctor").stdout
    assert re.search(r"^-        \d+ checks skipped until ssh is ok$", report, re.MULTILINE)
