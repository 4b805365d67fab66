"""The default pipeline with Codex as its builder and Claude Code as its reviewer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.e2e.control import DEMO, KEY, Control
from tests.testbed.model import ModelServer

OTHER_KEY = "sk-ant-test-93c1d2"
PIPELINE = """
version: 1
name: both
include: default-run
inputs: {claude_endpoint: {type: string}}
secrets:
  ANTHROPIC_API_KEY: {from: env, via: proxy, upstream: "${{ inputs.claude_endpoint }}"}
agents:
  claude: {use: claude-code, model: claude-sonnet-5, secret: ANTHROPIC_API_KEY}
change:
  review: {set: {agent: claude}}
"""


def scenario() -> dict[str, object]:
    """Return the demo's scenario, with the results of the reviewer as any agent gives them."""
    played = json.loads((DEMO / "scenario.json").read_text())
    for one in played["scenarios"]:
        if one["when"].startswith("You are the reviewer"):
            one["replies"][-1] = {"result": json.loads(one["replies"][-1]["text"])}
    assert isinstance(played, dict)
    return played


def test_codex_builds_and_claude_code_reviews_until_it_approves(
    control: Control, model: ModelServer, tmp_path: Path
) -> None:
    assert control.vm is not None
    shutil.copytree(DEMO / "project", control.workspace, dirs_exist_ok=True)
    model.set(scenario())
    control.env = {"OPENAI_API_KEY": KEY, "ANTHROPIC_API_KEY": OTHER_KEY}
    pipeline = tmp_path / "both.yaml"
    pipeline.write_text(PIPELINE)
    with ModelServer(control.vm.host_side, key=OTHER_KEY, scenario=scenario()) as other:
        ran = control.run(
            pipeline,
            *("--input", f"work_order={DEMO / 'work-order.md'}", "--input", "test=sh test.sh"),
            *("--input", f"endpoint={model.url}/v1", "--input", f"claude_endpoint={other.url}"),
            limit=180,
        )
    assert ran.code == 0, ran.stdout + ran.stderr
    assert {request.asked.prompt[:19] for request in model.requests if request.asked} == {"You are the builder"}
    assert {request.asked.prompt[:20] for request in other.requests if request.asked} == {"You are the reviewer"}
    assert ran.step("iterate[2].review")["result"]["status"] == "changes_requested"
    assert ran.step("iterate[3].review")["result"]["status"] == "approved"
    assert not ran.state["downgraded"]
