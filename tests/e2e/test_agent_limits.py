"""Codex meets its provider's limit in the middle of its work, and Claude Code takes over; or the run waits for both."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.control import KEY, Control, containers, happened, wait_until
from tests.testbed.model import Json, ModelServer

GOOD: Json = {"summary": "made it", "risks": [], "escalation": "", "tests": [], "changes": []}
PIPELINE = """
inputs: {openai: {type: string}, anthropic: {type: string}}
secrets:
  OPENAI: {from: env, via: proxy, api: openai, upstream: "${{ inputs.openai }}"}
  ANTHROPIC: {from: env, via: proxy, api: anthropic, upstream: "${{ inputs.anthropic }}"}
agents:
  codex: {use: codex, model: gpt-5.2-codex, secret: OPENAI}
  claude: {use: claude-code, model: claude-sonnet-5, secret: ANTHROPIC}
containers: {agent: {image: "pcc-runner:latest", network: none}}
steps:
  - {id: sync, upload: workspace}
  - id: build
    on: container
    container: agent
    agent: [codex, claude]
    prompt: {text: Make made.txt}
    result: {path: result.json, schema: builder-result}
    timeout: 10m
  - {id: changes, diff: diff.patch}
"""
CLAUDE: Json = {"replies": [{"shell": "echo claude >>made.txt"}, {"result": GOOD}]}


def limited(seconds: int) -> Json:
    """Return a reply that no call outlasts."""
    return {"result": GOOD, "fail": {"status": 429, "times": 10**6, "headers": {"retry-after": str(seconds)}}}


def arguments(codex: ModelServer, claude: ModelServer) -> tuple[str, ...]:
    return (PIPELINE, "--input", f"openai={codex.url}/v1", "--input", f"anthropic={claude.url}")


@pytest.fixture
def claude_model() -> Iterator[ModelServer]:
    with ModelServer(key=KEY) as model:
        yield model


@pytest.fixture
def limits(control: Control) -> Control:
    control.env = {"OPENAI": KEY, "ANTHROPIC": KEY}
    return control


def test_the_second_agent_goes_on_where_the_first_one_met_its_limit(
    limits: Control, model: ModelServer, claude_model: ModelServer
) -> None:
    model.set({"replies": [{"shell": "echo codex >>made.txt"}, limited(7200)]})
    claude_model.set(CLAUDE)
    ran = limits.run(*arguments(model, claude_model), limit=180)
    assert ran.code == 0, ran.stdout + ran.stderr
    assert "build AGENT CHANGED: claude takes over from codex: the model's API answered 429 (rate limit)" in ran.stdout
    assert "+codex\n+claude\n" in (ran.record / "diff.patch").read_text()
    build = ran.step("build")
    assert build["result"] == GOOD
    assert [attempt["code"] for attempt in build["attempts"]] == ["model_limited", None]
    assert [change["agent"] for change in ran.state["agent_changes"]] == ["claude"]
    assert "AGENT CHANGED build: claude took over from codex" in limits.do("show", ran.record.name).stdout


def test_the_run_waits_for_both_without_a_process_and_without_the_vm(
    limits: Control, model: ModelServer, claude_model: ModelServer
) -> None:
    model.set({"replies": [{"shell": "echo codex >>made.txt"}, limited(7200)]})
    claude_model.set({"replies": [limited(3600)]})
    ran = limits.run(*arguments(model, claude_model), limit=180)
    assert ran.code == 5, ran.stdout + ran.stderr
    assert ran.state["status"] == "waiting_for_model"
    (waits,) = [event for event in ran.events if event["event"] == "run_waiting"]
    assert waits["due"] == pytest.approx(time.time() + 3600, abs=180)
    assert "waiting_for_model" in limits.do("runs").stdout
    assert limits.vm
    assert containers(limits.vm, ran.record.name) == []
    other = limits.run("steps: [{id: one, on: vm, run: echo free}]")
    assert other.code == 0, "the VM is free for another run"
    assert "is due" in limits.do("resume", "--due").stdout

    model.set({"replies": [{"shell": "echo again >>made.txt"}, {"result": GOOD}]})
    resumed = limits.do("resume", ran.record.name)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "+codex\n+again\n" in (ran.record / "diff.patch").read_text()
    assert len(ran.step("build")["attempts"]) == 3


def test_an_agent_whose_command_hangs_is_stalled_and_one_that_computes_is_not(
    limits: Control, model: ModelServer, claude_model: ModelServer
) -> None:
    busy = "echo began; i=0; while [ $i -lt 1500000 ]; do i=$((i+1)); done; echo ended"
    model.set(
        {
            "scenarios": [{"when": "compute", "replies": [{"shell": busy}, {"result": GOOD}]}],
            "replies": [{"shell": "sleep 600"}, {"result": GOOD}],
        }
    )
    pipeline, *inputs = arguments(model, claude_model)
    keys = "timeout: 2m\n    stalled_after: 4s\n    on_stall: end\n    continue_on_error: true"
    one = pipeline.replace("[codex, claude]", "codex").replace("timeout: 10m", keys)
    begin, end = one.index("  - id: build"), one.index("  - {id: changes")
    other = one[begin:end].replace("id: build", "id: compute").replace("Make made.txt", "compute")
    ran = limits.run(one[:end] + other.replace("result.json", "other.json"), *inputs, limit=180)
    assert ran.code == 0, ran.stdout + ran.stderr
    stalled = [event for event in ran.events if event["event"] == "stalled"]
    assert [(event["step"], event["message"]) for event in stalled] == [("build", "")], "the engine knows the CPU time"
    assert ran.step("build")["outcome"] == "timed_out"
    assert ran.step("build")["message"].startswith("stalled: it did nothing for ")
    assert "build stalled: no output, no call of a model and no CPU time for " in ran.stdout
    assert ran.step("compute")["outcome"] == "succeeded"


@pytest.mark.parametrize("at", ["model_limited", "agent_changed"])
def test_a_run_killed_at_its_limit_hands_over_once_after_a_resume(
    limits: Control, model: ModelServer, claude_model: ModelServer, at: str
) -> None:
    model.set({"replies": [{"shell": "echo codex >>made.txt"}, limited(7200)]})
    claude_model.set(CLAUDE)

    def kill(process: subprocess.Popen[str], record: Path) -> None:
        wait_until(lambda: happened(record, f'"event":"{at}"'), 90)
        process.kill()

    ran = limits.run(*arguments(model, claude_model), meanwhile=kill, limit=120)
    assert ran.code == -signal.SIGKILL
    resumed = limits.do("resume", ran.record.name)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "+codex\n+claude\n" in (ran.record / "diff.patch").read_text()
    assert [change["agent"] for change in ran.state["agent_changes"]] == ["claude"]
    assert [attempt["code"] for attempt in ran.step("build")["attempts"]] == ["model_limited", None]
