"""Plays agent steps: the output of real programs gives actions, a report, a result, the words of a failure."""

from __future__ import annotations

from pathlib import Path

import pytest

from pccpipe.outcome import ActionKind, Code, Outcome, Stream
from pccpipe.record.agent_events import Activity
from pccpipe.record.events import CommandEnded, CommandStarted, StepStarted
from pccpipe.target import Chunk, Command, Exit
from pccpipe.targets.dummy import Play
from tests.executor.rehearsal import Played, Stage

STREAMS = Path(__file__).parents[1] / "agents/streams"
PIPELINE = """
agents:
  it: {{use: {agent}, model: m, secret: KEY}}
secrets:
  KEY: {{from: env}}
containers:
  box: {{image: i}}
steps:
  - id: build
    on: container
    container: box
    agent: it
    prompt: {{text: Do the work}}
    timeout: 40m
    result: {{path: result.json}}
"""


def played(stage: Stage, agent: str, output: bytes, exit_: int = 0, **files: bytes) -> Played:
    def script(command: Command) -> Play:
        return Play(
            output=(Chunk(Stream.STDOUT, output),),
            exit=Exit(exit_),
            files={name.replace("_", "."): data for name, data in files.items()},
        )

    stage.script, stage.secrets = script, {"KEY": "sk-made-up-0123456789"}
    return stage.play(PIPELINE.format(agent=agent))


def stream(name: str) -> bytes:
    return (STREAMS / f"{name}.jsonl").read_bytes()


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_a_program_that_writes_no_file_gives_its_result_in_its_output(stage: Stage) -> None:
    run = played(stage, "claude-code", stream("claude-code"))
    end = run.end_of("build")
    assert end.outcome is Outcome.SUCCEEDED
    assert end.result == {"summary": "Wrote calc.py", "risks": ["none known"]}
    assert (run.run_dir / "result.json").read_bytes().startswith(b'{"summary"')
    (started,) = run.notes.of(CommandStarted)
    assert started.agent == "it"
    (ended,) = run.notes.of(CommandEnded)
    assert ended.agent is not None
    assert (ended.agent.commands, ended.agent.failed_commands, ended.agent.usd) == (3, 1, 0.0042)
    assert [action.kind for action in run.notes.of(Activity)].count(ActionKind.COMMAND_END) == 3
    (begun,) = run.notes.of(StepStarted)
    assert begun.timeout == pytest.approx(2400, abs=60)


def test_a_program_that_writes_a_file_is_judged_by_the_file(stage: Stage) -> None:
    run = played(stage, "codex", stream("codex"), result_json=b'{"from": "file"}')
    assert run.end_of("build").result == {"from": "file"}
    run = played(stage, "codex", stream("codex"))
    assert run.end_of("build").code is Code.NO_RESULT


def test_no_result_in_the_output_is_no_result(stage: Stage) -> None:
    end = played(stage, "claude-code", stream("claude-code-flaky")).end_of("build")
    assert (end.outcome, end.code) == (Outcome.FAILED, Code.NO_RESULT)
    assert end.message == "its agent gave no result: its last message is not JSON"


def test_a_failure_has_the_words_of_the_agents_program(stage: Stage) -> None:
    end = played(stage, "claude-code", stream("claude-code-refused"), exit_=1).end_of("build")
    assert end.message == ("exit code 1; its agent reports: API Error: 400 pccpipe_max_tokens: the budget is used up")


@pytest.mark.parametrize(("cwd", "code"), [("", Code.AGENT_MISSING), ("sub", None)])
def test_exit_code_127_may_mean_the_steps_folder(stage: Stage, cwd: str, code: Code | None) -> None:
    stage.script, stage.secrets = lambda command: Play(exit=Exit(127)), {"KEY": "sk-made-up-0123456789"}
    pipeline = PIPELINE.replace("agent: it", f"agent: it\n    cwd: {cwd}" if cwd else "agent: it")
    end = stage.play(pipeline.format(agent="codex")).end_of("build")
    assert end.code is code
    assert end.message.startswith("the workspace has no such folder as its `cwd:`, or ") is bool(cwd)
    assert "its image has no program codex" in end.message


@pytest.mark.parametrize("summary", [b"sk-made-\\u0075p-0123456789", b"sk-made-up-0123456789"])
def test_a_secret_in_a_result_of_the_output_fails_the_step(stage: Stage, summary: bytes) -> None:
    line = b'{"type":"result","is_error":false,"structured_output":{"summary":"' + summary + b'"}}\n'
    run = played(stage, "claude-code", line)
    end = run.end_of("build")
    assert (end.outcome, end.code) == (Outcome.FAILED, Code.SECRET_IN_OUTPUT)
    assert b"***" in (run.run_dir / "result.json").read_bytes()
    assert "sk-made-up" not in (run.run_dir / "result.json").read_text()


@pytest.mark.parametrize(
    "output", [b"", b"\x00" * 100, b"{" * 10_000, b'{"type":"result","structured_output":[]}\n' * 3]
)
def test_odd_output_never_raises(stage: Stage, output: bytes) -> None:
    for agent in ("codex", "claude-code"):
        assert played(stage, agent, output, exit_=1).end_of("build").outcome is Outcome.FAILED


def test_three_stars_of_an_agent_are_no_secret(stage: Stage) -> None:
    line = b'{"type":"result","is_error":false,"structured_output":{"summary":"***"}}\n'
    assert played(stage, "claude-code", line).end_of("build").result == {"summary": "***"}
