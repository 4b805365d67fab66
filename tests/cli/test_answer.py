"""A run whose agent asks a person for input: run, answer, resume."""

from __future__ import annotations

import json
import signal

from tests.cli.command import Folder

PLEA = (
    "<<<NEED_HELP>>>\nwhat_i_tried: guessing\nwhat_i_need: the database\n"
    "inputs: [{key: db_host, label: Its host}, {key: db_port, label: Its port}]\n<<<END_HELP>>>"
)
ASKS = f"""
steps:
  - id: loop
    repeat: {{max: 2, until: steps.build.result.escalation == ''}}
    steps:
      - id: build
        run: |
          cat "$PCC_IN/answers"
          [ ! -s "$PCC_IN/answers" ] || echo '{{"escalation": ""}}' >"$PCC_OUT/result.json"
          [ -s "$PCC_IN/answers" ] || cp "$PCC_IN/plea" "$PCC_OUT/result.json"
        files:
          answers: {{text: "${{{{ steps.build.answers.db_host }}}}"}}
          plea: {{text: {json.dumps(json.dumps({"escalation": PLEA}))}}}
        result: {{path: "builder/iter-${{{{ iteration }}}}/result.json"}}
always: [{{id: tidy, run: echo tidied}}]
"""


def test_the_run_waits_is_answered_and_goes_on(folder: Folder) -> None:
    folder.pipeline(ASKS)
    waits = folder.do("run", "pipeline.yaml", "--run-id", "r1")
    assert waits.code == 5, waits.stderr
    assert "needs a person: the database" in waits.stdout
    assert "  db_host: Its host" in waits.stdout
    assert "pccpipe answer r1 db_host=... db_port=..." in waits.stdout
    assert "tidied" not in waits.stdout
    assert "waiting_for_input" in folder.do("runs").stdout
    shown = folder.do("show", "r1").stdout
    assert "needs a person" in shown
    assert "is gone" not in shown

    assert folder.do("resume", "r1").code == 5
    wrong = folder.do("answer", "r1", "db_hots=x")
    assert wrong.code == 2
    assert "db_host, db_port" in wrong.stderr
    assert folder.do("answer", "r1", "db_host").code == 2
    half = folder.do("answer", "r1", "db_port=77")
    assert half.code == 0
    assert "db_host: Its host" in half.stdout
    assert "db_port" not in half.stdout
    asked = folder.do("answer", "r1")
    assert "db_host: Its host" in asked.stdout

    whole = folder.do("answer", "r1", "db_host=10.0.0.7")
    continues = "All questions of r1 are answered. Continue: pccpipe resume r1"
    assert whole.stdout.strip() == continues
    assert folder.do("answer", "r1").stdout.strip() == continues
    assert folder.do("show", "r1").stdout.splitlines()[0] == continues
    twice = folder.do("answer", "r1", "db_host=10.0.0.8")
    assert (twice.code, "are answered" in twice.stderr, "pccpipe resume r1" in twice.stderr) == (2, True, True)
    resumed = folder.do("resume", "r1")
    assert resumed.code == 0, resumed.stdout + resumed.stderr
    assert "| 10.0.0.7" in resumed.stdout
    assert "| tidied" in resumed.stdout
    state = json.loads(folder.do("show", "r1", "--json").stdout)
    assert state["status"] == "succeeded"
    assert state["questions"][0]["given"] == {"db_port": "77", "db_host": "10.0.0.7"}
    over = folder.do("answer", "r1", "db_host=x")
    assert over.code == 2
    assert "has no question: its status is succeeded" in over.stderr


def test_a_waiting_run_can_be_cancelled(folder: Folder) -> None:
    folder.pipeline(ASKS)
    assert folder.do("run", "pipeline.yaml", "--run-id", "r1").code == 5
    done = folder.do("cancel", "r1")
    assert done.code == 0, done.stderr
    assert "| tidied" in done.stdout
    assert "cancelled" in folder.do("runs").stdout


BESIDE = f"""
steps:
  - id: both
    parallel:
      - id: asks
        run: cp "$PCC_IN/plea" "$PCC_OUT/result.json"
        files:
          plea: {{text: {json.dumps(json.dumps({"escalation": PLEA}))}}}
        result: {{path: result.json}}
      - {{id: works, run: echo works >begun; sleep 60}}
always: [{{id: tidy, run: echo tidied >tidy}}]
"""


def test_a_cancel_ends_the_run_even_if_a_step_beside_it_began_to_wait(folder: Folder) -> None:
    folder.pipeline(BESIDE)
    record = folder.path / ".system/runs/r1"

    def is_asked() -> bool:
        return (folder.path / "begun").exists() and "input_asked" in (record / "events.jsonl").read_text()

    done = folder.signalled("run", "pipeline.yaml", "--run-id", "r1", signals=(signal.SIGINT,), when=is_asked)
    assert done.code == 130, done.stdout + done.stderr
    state = json.loads(folder.do("show", "r1", "--json").stdout)
    assert state["status"] == "cancelled"
    assert all(step["outcome"] for step in state["steps"])
    assert (folder.path / "tidy").exists()
