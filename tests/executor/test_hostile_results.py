"""A hostile result cannot take all memory, stop pccpipe, or break the record."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pccpipe import limits
from pccpipe.errors import ResultError
from pccpipe.executor.result import parse_result
from pccpipe.outcome import Code, Outcome
from pccpipe.record.codec import encode
from pccpipe.record.events import StepEnded, StepStarted
from pccpipe.record.state import RunState, state_text
from pccpipe.targets.dummy import Play
from tests.executor.rehearsal import Played, Stage
from tests.record.script import events as stamped
from tests.stall import measured

STEP = """
    steps:
      - id: build
        run: "true"
        result: {path: builder/result.json}
"""
BOMB = "x0: &x0 [a,a,a,a,a,a,a,a,a,a]\n" + "".join(
    f"x{n}: &x{n} [{','.join([f'*x{n - 1}'] * 10)}]\n" for n in range(1, 9)
)
MARKED = f"<<<NEED_HELP>>>\n{BOMB}what_i_need: *x8\n<<<END_HELP>>>"
DEEP = '{"a":' + "[" * 700 + "]" * 700 + "}"
REPORT: dict[str, object] = {"summary": "s", "risks": [], "escalation": "", "tests": [], "changes": []}


def refuse(word: str) -> object:
    raise AssertionError(f"{word} is not JSON")


def record_of(played: Played) -> dict[str, Any]:
    """Return a run's run.json, parsed as strictly as a browser does."""
    state = RunState()
    for event in stamped(played.notes.happenings):
        state.apply(event)
        json.loads(encode(event), parse_constant=refuse)
    kept: dict[str, Any] = json.loads(state_text(state).encode(), parse_constant=refuse)
    return kept


@pytest.mark.parametrize(
    ("result", "says", "code"),
    [
        (json.dumps(REPORT | {"escalation": MARKED}), "aliases", Code.RESULT_TOO_LARGE),
        (json.dumps(REPORT | {"escalation": f"<<<NEED_HELP>>>\n{'x' * 70_000}"}), "64 KiB", Code.RESULT_TOO_LARGE),
        (json.dumps({"escalation": f"<<<NEED_HELP>>>\n{'[' * 5000}"}), "nesting", Code.RESULT_TOO_LARGE),
        (DEEP, "nesting", Code.RESULT_TOO_LARGE),
        ("[" + "1," * 200_000 + "1]", "100,000", Code.RESULT_TOO_LARGE),
        ('{"status": "approved", "n": 1e999}', "too large", Code.BAD_RESULT),
        ('{"n": ' + "9" * 5000 + "}", "digits", Code.BAD_RESULT),
        ('{"notes": ["half a pair: \\ud83d"]}', "U+D83D", Code.BAD_RESULT),
        ('{"half \\udc00": 1}', "U+DC00", Code.BAD_RESULT),
    ],
)
def test_a_hostile_result_is_a_failed_step_with_one_sentence(
    stage: Stage, result: str, says: str, code: Code | None
) -> None:
    stage.script = lambda command: Play(files={"result.json": result.encode()})
    played = stage.play(STEP)
    end = played.end_of("build")
    assert (end.outcome, end.code) == (Outcome.FAILED, code)
    assert says in end.message
    assert "\n" not in end.message
    assert len(end.message) < 300
    assert record_of(played)["steps"][0]["outcome"] == "failed"


@pytest.mark.parametrize(
    "result",
    [
        '{"n": 123456789012345678901234567890, "x": 1.5e300}',
        '{"emoji": "\\ud83d\\ude00"}',
        '{"a": "\\u0000\\u2028\\ufffe", "b": -0.0, "c": 1e-400}',
    ],
)
def test_every_json_value_is_accepted_and_the_record_stays_json(stage: Stage, result: str) -> None:
    stage.script = lambda command: Play(files={"result.json": result.encode()})
    played = stage.play(STEP)
    assert played.state.outcome is Outcome.SUCCEEDED
    assert record_of(played)["steps"][0]["result"] == json.loads(result)


def test_a_result_accepted_by_an_older_version_leaves_run_json_readable() -> None:
    state = RunState()
    happened = StepEnded("build", Outcome.SUCCEEDED, 1.0, result={"n": float("inf"), "t": "half \ud83d"})
    for event in stamped([StepStarted("build", "run"), happened]):
        state.apply(event)
    kept = json.loads(state_text(state).encode(), parse_constant=refuse)
    assert kept["steps"][0]["result"] == {"n": None, "t": "half ?"}


def test_a_result_that_is_too_large_may_be_retried(stage: Stage) -> None:
    results = iter([DEEP, "{}"])
    stage.script = lambda command: Play(files={"result.json": next(results).encode()})
    played = stage.play(STEP + "        retry: {attempts: 2, on: [failed], backoff: 0s}\n")
    assert played.state.outcome is Outcome.SUCCEEDED


def test_a_result_produces_at_most_six_errors() -> None:
    schema = {"anyOf": [{"properties": {"risks": {"items": {"type": "string"}}}}, {"type": "array"}]}
    with pytest.raises(ResultError, match="does not match its schema"):
        parse_result(json.dumps({"risks": [1] * 90_000}).encode(), "result.json", schema)
    setup = f"""
        import json
        from pccpipe.executor.result import parse_result
        schema = {schema!r}
        plain = {{"properties": {{"risks": {{"items": {{"type": "string"}}}}}}}}
        data = json.dumps({{"risks": [1] * 90_000}}).encode()
        try: parse_result(b'{{"risks": [1]}}', "r", schema)
        except Exception: pass
    """
    for which in ("schema", "plain"):
        _, memory, said = measured(setup, f"parse_result(data, 'result.json', {which})")
        assert said.startswith("ResultError")
        assert memory < limits.MARGIN


@pytest.mark.parametrize(
    "data",
    [
        "b'[' + b'[],' * (M // 3) + b'1]'",
        "b'[\"' + b'a' * (M - 4) + b'\"]'",
        "b'[\"' + b'\\\\u0041' * (M // 6 - 2) + b'\"]'",
        "b'[' + b'1,' * 49_000 + b'1]'",
        "b'{' + b','.join(b'\"k%05d%s\":1' % (i, b'x' * 70) for i in range(33_000)) + b'}'",
        "b' ' * M",
        "b'9' * M",
    ],
)
def test_no_result_holds_the_interpreter_lock_or_takes_memory(data: str) -> None:
    setup = f"""
        from pccpipe.executor.result import masked_result, parse_result
        from pccpipe.secrets.mask import Masker
        M = 4 << 20
        data = {data}
        masker = Masker(["a-secret-value"])
        masked_result(b"[1]", "r", masker)
    """
    longest, memory, _ = measured(setup, "masked_result(data, 'r', masker); parse_result(data, 'r', None)")
    assert longest < limits.PAUSE
    assert memory < limits.MARGIN


def test_a_pattern_that_never_finishes_is_stopped() -> None:
    schema = {"properties": {"name": {"pattern": "^(a+)+$"}}}
    with pytest.raises(ResultError, match="time for reading"):
        parse_result(json.dumps({"name": "a" * 60 + "!"}).encode(), "result.json", schema)
    parse_result(b'{"name": "aaa"}', "result.json", schema)
    with pytest.raises(ResultError, match="does not match its schema"):
        parse_result(b'{"name": "b"}', "result.json", schema)
