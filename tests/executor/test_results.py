"""A step's result must be valid, and a step without its result fails."""

from __future__ import annotations

import json

import pytest

from pccpipe.outcome import Code, Outcome
from pccpipe.target import Exit
from pccpipe.targets.dummy import Play
from tests.executor.rehearsal import Stage

STEP = """
    steps:
      - id: build
        run: "true"
        result: {path: builder/result.json, schema: builder-result}
"""
GOOD = b'{"summary": "s", "risks": [], "escalation": "", "tests": [], "changes": []}'


def test_a_valid_result_is_fetched(stage: Stage) -> None:
    stage.script = lambda command: Play(files={"result.json": GOOD})
    played = stage.play(STEP)
    assert played.state.outcome is Outcome.SUCCEEDED
    assert played.end_of("build").result_path == "builder/result.json"
    assert (played.run_dir / "builder/result.json").read_bytes() == GOOD


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "missing"),
        ({"result.json": b""}, "is empty"),
        ({"result.json": b"Done! {}"}, 'not valid JSON, so there is no result. It says: "Done! {}"'),
        ({"result.json": b'{"a": NaN}'}, "not valid JSON"),
        ({"result.json": b"\xff\xfe{}"}, "not UTF-8"),
        ({"result.json": GOOD.replace(b'"risks": []', b'"risks": "none"')}, "$.risks"),
        ({"result.json": b'{"summary": "s"}'}, "does not match its schema"),
        ({"result.json": b"[" * 100_000}, "exceeds the limit of 100"),
        ({"result.json": b" " * (5 << 20)}, "bytes"),
    ],
)
def test_exit_0_without_a_valid_result_is_a_failure_with_its_cause(
    stage: Stage, files: dict[str, bytes], says: str
) -> None:
    stage.script = lambda command: Play(files=files)
    end = stage.play(STEP).end_of("build")
    assert end.outcome is Outcome.FAILED
    assert end.exit_code == 0
    assert says in end.message


def test_a_failed_command_with_a_result_stays_failed_and_the_file_is_kept(stage: Stage) -> None:
    stage.script = lambda command: Play(files={"result.json": GOOD}, exit=Exit(1))
    played = stage.play(STEP)
    assert played.end_of("build").outcome is Outcome.FAILED
    assert (played.run_dir / "builder/result.json").exists()


def test_a_results_path_cannot_leave_the_runs_folder(stage: Stage) -> None:
    stage.script = lambda command: Play(files={"result.json": b'{"where": "../../x"}', "x": b"{}"})
    played = stage.play("""
        steps:
          - {id: a, run: "true", result: {path: result.json}}
          - {id: b, run: "true", result: {path: "${{ steps.a.result.where }}"}}
    """)
    assert played.end_of("b").outcome is Outcome.FAILED
    assert "`..`" in played.end_of("b").message
    assert not (played.run_dir.parent.parent / "x").exists()


@pytest.mark.parametrize(
    "where",
    ["taken", "taken/r.json/x", "run.json", "../up", "/etc/x", "", "n" * 300, "x/" * 600, "\0", "a b\n/\x1b"],
)
def test_a_results_path_from_an_agent_is_a_file_of_its_own_in_the_runs_folder(stage: Stage, where: str) -> None:
    said = json.dumps({"where": where}).encode()
    name = where.rpartition("/")[2]
    stage.script = lambda command: Play(files={"r.json": said} if command.step == "a" else {name: b"{}"})
    played = stage.play("""
        steps:
          - {id: a, run: "true", result: {path: taken/r.json}}
          - {id: b, run: "true", result: {path: "${{ steps.a.result.where }}"}}
    """)
    end = played.end_of("b")
    if where.startswith("a b"):
        assert (played.run_dir / where).read_bytes() == b"{}"
    else:
        assert end.outcome is Outcome.FAILED
        assert "the result's path" in end.message or "a value contains" in end.message
        assert "b@local" not in played.order


@pytest.mark.parametrize(
    "left",
    [
        b'{"said": "sk-very-secret-value"}',
        b'{"sk-very-secret-value": 1}',
        b'{"said": "c2stdmVyeS1zZWNyZXQtdmFsdWU="}',
        b'{"said": "\\u0073k-very-secret-value"}',
        b'{"said": "sk-very-secret-value"',
    ],
)
@pytest.mark.parametrize("code", [0, 1])
def test_a_secret_in_a_result_is_masked_and_fails_the_step_with_no_retry(stage: Stage, left: bytes, code: int) -> None:
    stage.secrets = {"KEY": "sk-very-secret-value"}
    stage.script = lambda command: Play(files={"result.json": left}, exit=Exit(code))
    played = stage.play("""
        secrets: {KEY: {from: env}}
        steps:
          - id: a
            run: "true"
            secrets: [KEY]
            result: {path: result.json}
            retry: {attempts: 3}
            continue_on_error: true
          - id: b
            if: steps.a.failed
            run: "true"
    """)
    end = played.end_of("a")
    assert (end.outcome, end.code, end.result) == (Outcome.FAILED, Code.SECRET_IN_OUTPUT, None)
    assert "masked in result.json" in end.message
    assert played.order == ["a@local", "b@local"]
    kept = (played.run_dir / "result.json").read_bytes()
    assert b"***" in kept
    assert b"k-very" not in kept
    assert b"c2stdmVy" not in kept


def test_a_run_that_a_leak_ended_has_that_as_its_status(stage: Stage) -> None:
    stage.secrets = {"KEY": "sk-very-secret-value"}
    stage.script = lambda command: Play(files={"result.json": b'"sk-very-secret-value"'})
    for fails_as, status in (("", "secret_in_output"), ("fails_as: build_failed", "build_failed")):
        played = stage.play(f"""
            secrets: {{KEY: {{from: env}}}}
            steps:
              - id: a
                run: "true"
                secrets: [KEY]
                result: {{path: result.json}}
                {fails_as}
        """)
        assert (played.state.outcome, played.state.status) == (Outcome.FAILED, status)


def test_a_secret_that_is_a_number_is_masked(stage: Stage) -> None:
    stage.secrets = {"PIN": "83920174"}
    stage.script = lambda command: Play(files={"result.json": b'{"n": [83920174e0, true]}'})
    played = stage.play("""
        secrets: {PIN: {from: env}}
        steps: [{id: a, run: "true", secrets: [PIN], result: {path: result.json}}]
    """)
    assert played.end_of("a").code is Code.SECRET_IN_OUTPUT
    assert b"8392" not in (played.run_dir / "result.json").read_bytes()


@pytest.mark.parametrize("path", ["run.json", "logs/x.json", "workspace/result.json", "lock"])
def test_a_result_with_a_name_of_the_record_is_refused_before_its_command_begins(stage: Stage, path: str) -> None:
    played = stage.play(f"steps: [{{id: a, run: x, result: {{path: \"${{{{ '{path}' }}}}\"}}}}]")
    assert played.order == []
    assert "is taken" in played.end_of("a").message
