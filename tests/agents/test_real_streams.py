"""Reads what the real programs wrote, each against a scripted model (streams/README.md), by its agent file."""

from __future__ import annotations

from pathlib import Path

import pytest

from pccpipe.agents.stream import Action, AgentReader, Usage
from pccpipe.data_files import agent_path
from pccpipe.outcome import ActionKind
from pccpipe.spec.agent_file import agent_problems, read_agent

STREAMS = Path(__file__).parent / "streams"
EXAMPLES = Path(__file__).parents[2] / "examples/agents"
FILES = {
    "codex": agent_path("codex"),
    "claude-code": agent_path("claude-code"),
    "gemini": EXAMPLES / "gemini.yaml",
    "opencode": EXAMPLES / "opencode.yaml",
}
RESULT = b'{"summary":"Wrote calc.py","risks":[]}'


def read(agent: str, stream: str = "") -> tuple[AgentReader, list[str]]:
    """Read a stream; return the reader, and the actions in short words."""
    about = read_agent(FILES[agent])
    reader = AgentReader(about.events, about.result, usage_adds_up=about.usage_adds_up, folder="/workspace")
    data = (STREAMS / f"{stream or agent}.jsonl").read_bytes()
    actions = [action for at in range(0, len(data), 1000) for action in reader.feed(data[at : at + 1000])]
    return reader, [short(action) for action in [*actions, *reader.finish()]]


def short(action: Action) -> str:
    match action.kind:
        case ActionKind.COMMAND_END:
            return f"end {action.exit_code}{' failed' if action.failed else ''}"
        case ActionKind.EDIT:
            return f"edit {action.text} {action.added} {action.removed}"
        case _:
            return f"{action.kind} {action.text}"


@pytest.mark.parametrize("agent", FILES)
def test_the_agent_file_has_no_problem(agent: str) -> None:
    assert agent_problems(FILES[agent]) == []


def test_codex() -> None:
    reader, actions = read("codex")
    assert actions == [
        "command ls -la",
        "end 0",
        "command echo one; exit 3",
        "end 3 failed",
        "edit calc.py None None",
        "command sleep 2; echo tested",
        "end 0",
        f"message {RESULT.decode()}",
    ]
    assert reader.session_id == "01a22db4-950e-7922-99cc-4549b807cd77"
    assert reader.usage == Usage(500, 0, 100, None)
    assert reader.result() == RESULT


def test_claude_code() -> None:
    reader, actions = read("claude-code")
    assert actions == [
        "message I look at the workspace.",
        "command ls -la",
        "end None",
        "command echo one; exit 3",
        "end 3 failed",
        "edit calc.py 2 None",
        "edit calc.py 1 1",
        "command sleep 2; echo tested",
        "end None",
    ]
    assert reader.session_id == "12c7ca03-cb7b-40f1-87aa-fd656ab013ad"
    assert reader.usage == Usage(700, 0, 140, 0.0042)
    assert reader.result() == b'{"summary": "Wrote calc.py", "risks": ["none known"]}'


@pytest.mark.parametrize(
    ("agent", "commands"),
    [
        ("gemini", ["command ls -la", "end None", "command echo one; exit 3", "end None"]),
        # It reports a command only when it is over.
        ("opencode", ["end 0", "end 3 failed"]),
    ],
)
def test_a_users_agent_file_is_enough(agent: str, commands: list[str]) -> None:
    reader, actions = read(agent)
    assert actions == [
        "message I look at the workspace.",
        *commands,
        "edit calc.py 2 None",
        "edit calc.py 1 1",
        f"message I wrote calc.py. {RESULT.decode()}",
    ]
    assert reader.counts.commands == 2
    assert reader.session_id
    assert (reader.usage.input_tokens, reader.usage.output_tokens) == (600, 120)
    assert reader.result() == RESULT


@pytest.mark.parametrize("agent", ["codex", "claude-code"])
def test_calls_that_are_made_again_are_no_error(agent: str) -> None:
    reader, actions = read(agent, f"{agent}-flaky")
    assert reader.counts.retries == (3 if agent == "codex" else 2)
    assert next(action for action in actions if not action.startswith("retry")) == "command ls"
    assert (reader.error, reader.last_message) == ("", "Done in spite of it.")


@pytest.mark.parametrize(
    ("agent", "stream", "error"),
    [
        ("codex", "codex-refused", "pccpipe_max_tokens: the budget is used up"),
        ("codex", "codex-wrong-key", "unexpected status 401 Unauthorized: Incorrect API key provided"),
        ("claude-code", "claude-code-refused", "API Error: 400 pccpipe_max_tokens: the budget is used up"),
    ],
)
def test_the_error_of_the_api_is_said_once(agent: str, stream: str, error: str) -> None:
    reader, actions = read(agent, stream)
    assert reader.error.startswith(error)
    assert len([action for action in actions if action.startswith("error")]) == 1
    assert reader.result() is None
