"""`pccpipe test` with a small agent, on this machine: what it plays, what it compares, what it prints."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pccpipe.cancel import Cancel
from pccpipe.cli.test import chosen_cases
from pccpipe.errors import UsageError
from pccpipe.record.events import Event, StepStarted
from pccpipe.scripted.case import FaultKind, RunFault
from pccpipe.scripted.controller import ControllerJob, FaultPlayer
from tests.e2e.control import happened, wait_until

AGENT = Path(__file__).with_name("agent.py")
ROOT = Path(__file__).resolve().parents[2]
PIPELINE = f"""
version: 1
name: small
inputs: {{word: {{type: string, default: please}}}}
secrets:
  KEY: {{from: env, via: proxy, upstream: "http://192.0.2.1/v1"}}
  OTHER: {{from: command, command: "touch ran; echo x"}}
steps:
  - {{id: sync, upload: workspace}}
  - {{id: look, on: local, run: '! grep -qs sk-the-real-on[e] /proc/[0-9]*/environ'}}
  - id: loop
    fails_as: not_approved
    repeat: {{max: 3, until: "steps.ask.result.status == 'approved'"}}
    steps:
      - id: ask
        on: local
        run: {sys.executable} {AGENT}
        files: {{prompt.md: {{text: "${{{{ inputs.word }}}}, round ${{{{ iteration }}}}"}}}}
        secrets: [KEY, OTHER]
        timeout: 60s
        retry: {{attempts: 2, backoff: 0s, on: [failed]}}
        result: {{path: "out/${{{{ iteration }}}}/result.json"}}
      - {{id: changes, diff: diff.patch}}
"""


class Bench:
    """A folder with a pipeline and a test file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "pipeline.yaml").write_text(PIPELINE)

    def write(self, cases: str) -> None:
        text = f"version: 1\npipeline: pipeline.yaml\ncases:\n{textwrap.indent(textwrap.dedent(cases).strip(), '  ')}\n"
        (self.folder / "t.yaml").write_text(text)

    @property
    def temporary(self) -> Path:
        folder = self.folder / "temporary"
        folder.mkdir(exist_ok=True)
        return folder

    def start(self) -> subprocess.Popen[str]:
        """Begin to play, and wait until a step's command began."""
        process = subprocess.Popen(
            [sys.executable, "-m", "pccpipe", "test", "t.yaml"],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(self.temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: self.runs and happened(self.runs[0], '"command_started"'))
        return process

    def play(
        self, cases: str, *arguments: str, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        self.write(cases)
        done = subprocess.run(
            [sys.executable, "-m", "pccpipe", "test", "t.yaml", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        return done

    @property
    def runs(self) -> list[Path]:
        return sorted((self.folder / ".system/runs").glob("test-*"))


@pytest.fixture
def tests(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_case_that_holds_passes_and_leaves_no_record(tests: Bench) -> None:
    done = tests.play(
        """
        - name: two rounds
          inputs: {word: the order}
          workspace: {README.md: "hello"}
          script:
            ask:
              - round: 1
                do: [{say: I work.}, {run: echo hi >made.txt}, {result: {status: changes}}]
              - round: 2
                do: [{result: {status: approved, notes: []}}]
          expect:
            rounds: {loop: 2}
            calls: {ask: 3, "loop[1].ask": 2, loop.ask: 3}
            prompts: {ask: ["the order, round 2"]}
            results: {ask: {status: approved}, "loop[1].ask": {status: changes}}
            steps: {sync: succeeded}
            changed: [made.txt]
            patch: ["+hi"]
            warnings: []
        """,
        environment={"KEY": "sk-the-real-one"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("ok      two rounds")
    assert done.stdout.endswith("1 case, 0 failed\n")
    assert not tests.runs
    assert not list(tests.folder.rglob("ran")), "a source of a secret was asked"


def test_each_expectation_that_does_not_hold_is_a_sentence(tests: Bench) -> None:
    script = "ask: [{do: [{run: echo hi >made.txt}, {result: {status: approved}}]}]"
    done = tests.play(
        f"""
        - name: wrong
          script: {{{script}}}
          expect:
            outcome: failed
            status: not_approved
            code: no_result
            message: because
            rounds: {{loop: 2}}
            calls: {{ask: 5}}
            prompts: {{ask: [the order]}}
            results: {{ask: {{status: changes}}}}
            steps: {{sync: failed}}
            downgraded: [ask]
            warnings: [odd]
            changed: [other.txt]
            patch: [+ho]
        """
    )
    assert done.returncode == 1
    lines = [line.strip() for line in done.stdout.splitlines()]
    (run,) = tests.runs
    assert lines[0].startswith("FAILED  wrong")
    assert lines[1:-1] == [
        "outcome: expected failed, not succeeded",
        "status: expected not_approved, not succeeded",
        "code: expected no_result, not none",
        "message: expected 'because' in ''",
        "downgraded: ask was not downgraded",
        "warnings: expected 'odd'",
        "steps: sync: expected failed, not succeeded",
        "rounds: loop: expected 2, not 1",
        'results: ask: expected \'{"status": "changes"}\' in \'{"status": "approved"}\'',
        "calls: ask: expected 5 of the model, not 2",
        "prompts: ask: expected 'the order' in one of its 1 prompts",
        "changed: made.txt changed",
        "changed: other.txt did not change",
        "patch: expected '+ho' in diff.patch",
        f"next: pccpipe show {run.name}",
    ]
    assert json.loads((run / "run.json").read_text())["outcome"] == "succeeded"


def test_a_prompt_without_a_turn_ends_the_step_and_fails_the_case(tests: Bench) -> None:
    done = tests.play(
        """
        - name: only the second round
          script: {ask: [{round: 2, do: []}]}
          expect: {outcome: failed}
        """
    )
    assert done.returncode == 1
    assert "loop[1].ask: the script has no turn for attempt 1, prompt 1, model m" in done.stdout


def test_the_controller_is_killed_and_the_run_resumed(tests: Bench) -> None:
    done = tests.play(
        """
        - name: killed twice
          script: {ask: [{do: [{wait: 1s}, {run: echo x >>made.txt}, {result: {status: approved}}]}]}
          faults:
            - {step: ask, do: kill_controller}
            - {step: ask, event: step_ended, do: kill_controller}
          expect: {rounds: {loop: 1}, changed: [made.txt], patch: ["@@ -0,0 +1 @@"]}
        """
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_cancel_is_played_and_a_fault_that_did_not_come_is_named(tests: Bench) -> None:
    done = tests.play(
        """
        - name: cancelled
          script: {ask: [{do: [{hang: true}]}]}
          faults: [{step: ask, do: cancel}]
          expect: {outcome: cancelled}
        - name: too late
          script: {ask: [{do: [{result: {status: approved}}]}]}
          faults: [{step: ask, event: step_retrying, do: cancel}, {step: ask, do: cut_connection}]
        """
    )
    assert done.returncode == 1
    assert done.stdout.startswith("ok      cancelled")
    assert "the fault cancel at ask (step_retrying) did not come" in done.stdout
    assert "the fault cut_connection at ask (command_started) did not come" in done.stdout


def test_faults_of_the_provider_come_before_the_answer(tests: Bench) -> None:
    done = tests.play(
        """
        - name: two errors
          script: {ask: [{do: [{fail: {status: 500, times: 2}}, {cut: 1}, {result: {status: approved}}]}]}
          expect: {calls: {ask: 4}}
        - name: a wrong key
          script: {ask: [{do: [{fail: {status: 401, times: always}}]}]}
          expect: {outcome: failed, status: failed, code: model_unavailable, calls: {ask: 2}}
        - name: an empty answer
          script: {ask: [{attempt: 1, do: [{empty: true}]}, {attempt: 2, do: [{result: {status: approved}}]}]}
        """
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_case_over_its_time_is_cancelled(tests: Bench) -> None:
    began = time.monotonic()
    done = tests.play("- {name: slow, timeout: 3s, script: {ask: [{do: [{hang: true}]}]}}")
    assert "it was not over after 3 s, and was cancelled" in done.stdout
    assert time.monotonic() - began < 50
    (run,) = tests.runs
    assert json.loads((run / "run.json").read_text())["outcome"] == "cancelled"


def test_the_results_are_written_for_a_ci_server(tests: Bench) -> None:
    done = tests.play(
        """
        - {name: good, script: {ask: [{do: [{result: {status: approved}}]}]}}
        - {name: "bad <&\\a>", script: {ask: [{do: [{result: {status: approved}}]}]}, expect: {rounds: {loop: 2}}}
        """,
        *("--junit", "out.xml"),
    )
    assert done.returncode == 1
    root = ElementTree.parse(tests.folder / "out.xml").getroot()
    assert (root.get("tests"), root.get("failures")) == ("2", "1")
    good, bad = root.iter("testcase")
    assert (good.get("name"), bad.get("name")) == ("good", "bad <&?>")
    failure = bad.find("failure")
    assert failure is not None
    assert failure.get("message") == "rounds: loop: expected 2, not 1"


def test_a_case_that_cannot_begin_fails_alone(tests: Bench) -> None:
    cases = """
        - {name: clash, workspace: {a: x, a/b: y}}
        - {name: name, workspace: {"a\\0b": x}}
        - {name: fine, script: {ask: [{do: [{result: {status: approved}}]}]}}
    """
    done = tests.play(cases, "--junit", "j.xml")
    assert done.returncode == 1, done.stderr
    assert done.stdout.count("cannot make the workspace") == 2
    assert done.stdout.splitlines()[-1] == "3 cases, 2 failed"
    assert ElementTree.parse(tests.folder / "j.xml").getroot().get("failures") == "2"


def test_one_case_can_be_chosen(tests: Bench) -> None:
    cases = """
        - {name: one, script: {ask: [{do: [{result: {status: approved}}]}]}}
        - {name: two, script: {}}
    """
    done = tests.play(cases, "--case", "one")
    assert done.returncode == 0, done.stdout
    assert "two" not in done.stdout
    unknown = tests.play(cases, "--case", "tow")
    assert (unknown.returncode, unknown.stderr) == (2, "pccpipe: there is no case 'tow'\nhint: did you mean `two`?\n")


@pytest.mark.parametrize(
    ("cases", "words"),
    [
        ("- {name: a, script: {aks: [{do: []}]}}", "the pipeline has no step `aks`"),
        ("- {name: a, faults: [{step: lop, do: cancel}]}", "the pipeline has no step `lop`"),
        ("- {name: a, faults: [{step: ask, event: step_endd, do: cancel}]}", "did you mean `step_ended`?"),
        ("- {name: a, expect: {rounds: {lop: 1}}}", "the pipeline has no step `lop`"),
        ("- {name: a}\n- {name: a}", "two cases have the name 'a'"),
        ("- {name: a, script: {ask: [{do: [{result: 1}, {run: ls}]}]}}", "the turn has ended before this answer"),
        ("- {name: a, script: {ask: [{do: [{say: x}, {say: y}]}]}}", "the turn has ended before this answer"),
        ("- {name: a, script: {ask: [{do: [{say: x, run: y}]}]}}", "takes one key, not several: `say`, `run`"),
        ("- {name: a, script: {ask: [{do: [{fial: 429}]}]}}", "unknown key `fial`"),
        ("- {name: a, pipeline: none.yaml}", "t.yaml:4:15: there is no file"),
        ("- {name: a, script: {look: [{do: []}]}}", "the step `look` asks no model"),
        ("- {name: a, project: none.yaml}", "there is no file"),
        ("- {name: a, pipeline: ~nobody-here/x}", "the path '~nobody-here/x' begins with an unknown home folder"),
        ("- {name: a, project: ~nobody-here/x}", "the path '~nobody-here/x' begins with an unknown home folder"),
        (f"- {{name: a, pipeline: {'x' * 5000}}}", "x"),
        ("- {name: a, expect: {rounds: {loop: 1e308}}}", "`loop` must be at most"),
        ("- {name: a, script: {sync: []}}", "`sync` is empty"),
        ("- {name: a, script: {ask: [{do: 5}]}}", "`do` must be a list"),
        ("- {name: a, workspace: nowhere}", "is not a folder"),
        ("- {name: a, workspace: {../x: y}}", "lies outside of it"),
        ("- 5", "must be a mapping"),
    ],
)
def test_a_wrong_file_is_refused_before_anything_runs(tests: Bench, cases: str, words: str) -> None:
    tests.write(cases)
    with pytest.raises(UsageError) as refused:
        chosen_cases([tests.folder / "t.yaml"], (), None)
    assert words in str(refused.value)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 1), (signal.SIGKILL, -9), (signal.SIGTERM, 143)])
def test_the_run_of_a_stopped_test_is_cancelled(tests: Bench, number: int, code: int) -> None:
    tests.write("- {name: a, script: {ask: [{do: [{hang: true}]}]}}")
    process = tests.start()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in errors) == (code, False)
    (run,) = tests.runs
    wait_until(lambda: happened(run, '"event":"run_ended","outcome":"cancelled"'))
    wait_until(lambda: not list(tests.temporary.glob("pccpipe-test-*")))


def test_validate_takes_a_test_file(tests: Bench) -> None:
    tests.write("- {name: a, script: {ask: [{do: []}]}}")

    def validate() -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "pccpipe", "validate", "t.yaml"]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(argv, cwd=tests.folder, env=env, capture_output=True, text=True, check=False)

    assert validate().stdout == "t.yaml: fine, a test file, 1 case\n"
    tests.write("- {name: a, script: {aks: [{do: []}]}}")
    wrong = validate()
    assert (wrong.returncode, "did you mean `ask`?" in wrong.stderr) == (2, True)


AGENT_PIPELINE = """
version: 1
name: agents
secrets:
  KEY: {from: env, via: proxy, upstream: "http://192.0.2.1/v1"}
  DIRECT: {from: env}
agents:
  good: {use: codex, model: m, secret: KEY}
  bare: {use: codex, model: m, secret: DIRECT}
steps:
  - {id: work, on: local, agent: %s, prompt: {text: x}}
"""


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        ("good", "step work: the program `codex` is not installed on this machine"),
        ("[good, bare]", "step work: DIRECT is not `via: proxy`"),
    ],
)
def test_an_agent_that_cannot_be_scripted_is_named_before_anything_runs(tests: Bench, agent: str, words: str) -> None:
    (tests.folder / "agents.yaml").write_text(AGENT_PIPELINE % agent)
    cases = "- {name: a, pipeline: agents.yaml, script: {work: [{do: []}]}}"
    done = tests.play(cases, environment={"PATH": "/nowhere"})
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr
    assert "hint: " in done.stderr
    assert not tests.runs


def test_a_fault_comes_once(tmp_path: Path) -> None:
    fault = RunFault("ask", FaultKind.CANCEL, "step_started")
    job = ControllerJob("r", "", False, "", None, "", {}, {}, {}, 0.0, (fault,), str(tmp_path / "fired"))
    cancel = Cancel()
    player = FaultPlayer(job, cancel)
    for number, path in enumerate(["other", "loop[1].ask", "loop[2].ask"]):
        assert cancel.requested is (number == 2)
        player(Event(number, 0.0, StepStarted(path, "run")))
    assert (tmp_path / "fired").read_text() == "cancel at ask (step_started)\n"
