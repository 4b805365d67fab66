"""The real agents meet the end of their budget; a person raises it, and their step goes on in the same conversation."""

from __future__ import annotations

import json

import pytest

from tests.e2e.control import KEY, Control
from tests.testbed.model import ModelServer

AGENTS = {
    "codex": {"use": "codex", "model": "gpt-5.2-codex", "key": "OPENAI_API_KEY", "api": "openai"},
    "claude": {"use": "claude-code", "model": "claude-sonnet-5", "key": "ANTHROPIC_API_KEY", "api": "anthropic"},
}
PIPELINE = """
agents: {{builder: {{use: {use}, model: {model}, secret: {key}}}}}
secrets: {{{key}: {{from: env, via: proxy, api: {api}, upstream: "{url}/v1"}}}}
containers: {{box: {{image: "pcc-runner:latest", network: none, memory: 2g}}}}
budget: {{usd: 50}}
steps:
  - {{id: sync, upload: workspace}}
  - id: build
    on: container
    container: box
    agent: builder
    prompt: {{text: "Make two files."}}
    session: builder
    timeout: 80s
    budget: {{tokens: 90k, at_end: ask}}
    result: {{path: result.json, schema: builder-result}}
"""
GOOD = {"summary": "made it", "risks": [], "escalation": "", "tests": [], "changes": []}


@pytest.mark.parametrize("agent", AGENTS)
def test_a_budget_ends_a_real_agent_at_once_and_a_person_raises_it(
    control: Control, model: ModelServer, agent: str
) -> None:
    control.env = {AGENTS[agent]["key"]: KEY}
    usage = {"input_tokens": 80_000, "output_tokens": 100}
    replies = [{"shell": "echo one >one.txt", "usage": usage}, {"result": GOOD, "usage": usage}]
    model.set({"replies": replies})
    waits = control.run(PIPELINE.format(url=model.url, **AGENTS[agent]))
    assert waits.code == 5, waits.stdout + waits.stderr
    assert "build needs a person: a higher budget of tokens" in waits.stdout
    assert waits.state["status"] == "waiting_for_input"
    made = waits.step("build")["model"]["calls"]
    assert waits.step("build")["seconds"] is None
    run = waits.record.name
    wrong = control.do("answer", run, "budget=90k")
    assert "needs a number above 90,000" in wrong.stderr
    assert control.do("answer", run, "budget=5M").returncode == 0
    ended = control.do("resume", run)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    state = json.loads((waits.record / "run.json").read_text())
    used = state["model"]
    assert used["calls"] > made
    assert used["usd"] > 0
    assert (used["budget_usd"], state["steps"][1]["model"]["budget_tokens"]) == (50, 5_000_000)
    first, second = (event for event in waits.events if event["event"] == "command_started")
    assert (first["session"], second["session"] != "") == ("", True)
    assert "USD of 50.00 USD" in ended.stdout
