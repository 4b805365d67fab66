"""Shows an agent at work, also after pccpipe was killed: each action once in the record, the whole in the end."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path

from pccpipe.data_files import agent_path
from tests.cli.command import Folder, finish, wait_until

STREAM = Path(__file__).parents[1] / "agents/streams/claude-code.jsonl"
PIPELINE = """
    agents:
      player: {use: ./player.yaml, model: stream.jsonl}
    steps:
      - id: write
        on: local
        agent: player
        prompt: {text: Do the work}
        result: {path: write/result.json}
"""


def player(folder: Folder) -> None:
    """Make an agent that plays Claude Code's output: the first half, then the rest once a file is there."""
    shutil.copy(STREAM, folder.path / "stream.jsonl")
    events = agent_path("claude-code").read_text().partition("\nevents:")[2]
    script = """
        f=$PCC_WORKSPACE/$PCC_MODEL
        head -n 6 "$f"
        while [ ! -e "$PCC_WORKSPACE/go" ]; do sleep 0.1; done
        tail -n +7 "$f"
        echo a word on stderr >&2
    """
    (folder.path / "player.yaml").write_text(
        f"version: 1\nname: player\nprogram: sh\napi: anthropic\nin_container: exit 1\noutside: |{script}\n"
        f"result: {{event: {{type: result}}, at: structured_output}}\nevents:{events}"
    )
    folder.pipeline(PIPELINE)


def actions(folder: Folder) -> list[str]:
    return [line[9:] for line in folder.do("logs", "--agent", "r1", "write").stdout.splitlines()]


def test_a_killed_pccpipe_continues_with_each_action_once(folder: Folder) -> None:
    player(folder)
    file = folder.path / ".system/runs/r1/write/activity.jsonl"
    process = folder.start("run", "pipeline.yaml", "--run-id", "r1", "--local", "--format", "plain")
    wait_until(lambda: file.exists() and file.read_bytes().count(b"\n") == 5)
    os.kill(process.pid, signal.SIGKILL)
    finish(process, 20)
    before = actions(folder)
    assert [re.sub(r"in [0-9.]+s", "in T", line) for line in before] == [
        "says: I look at the workspace.",
        "$ ls -la",
        "done in T: $ ls -la",
        "$ echo one; exit 3",
        "exit 3 in T: $ echo one; exit 3",
    ]
    (folder.path / "go").touch()
    done = folder.do("resume", "r1", "--format", "plain")
    assert done.code == 0, done.stdout + done.stderr
    assert '{"type"' not in done.stdout
    assert "write | a word on stderr" in done.stdout
    assert "write by player: 3 commands (1 failed), 1 file +3 -1, 1 message" in done.stdout
    after = actions(folder)
    assert after[:5] == before
    assert len(after) == 9
    shown = folder.do("show", "r1").stdout
    assert "agent: player: 3 commands (1 failed), 1 file +3 -1, 1 message; by its own account 0.0042 USD" in shown
    # The raw lines are in the log.
    assert folder.do("logs", "r1", "write", "--stdout").stdout == STREAM.read_text()


def test_lines_of_json_have_output_and_activity(folder: Folder) -> None:
    player(folder)
    (folder.path / "go").touch()
    done = folder.do("run", "pipeline.yaml", "--run-id", "r1", "--local", "--format", "jsonl")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    work = [event for event in events if event["event"] == "activity"]
    assert len(work) == 9
    assert {event["seq"] for event in work} == {0}
    (ended,) = [event for event in events if event["event"] == "command_ended"]
    assert ended["agent"]["commands"] == 3
    assert any(event["event"] == "output" for event in events)
