"""The real agents continue their sessions in fresh containers, and nothing but transcripts goes with them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from pccpipe.scripted.server import ReceivedRequest
from tests.e2e.control import KEY, ROOT, Control, Ran, happened, wait_until
from tests.testbed.model import ModelServer

SCHEMA = {
    "type": "object",
    "properties": {"done": {"type": "boolean"}},
    "required": ["done"],
    "additionalProperties": False,
}
PIPELINE = """
agents: {{builder: {{use: {use}, model: {model}, secret: {key}}}}}
secrets: {{{key}: {{from: env, via: proxy, api: {api}, upstream: "{url}/v1"}}}}
containers: {{box: {{image: "pcc-runner:latest", network: none, memory: 2g}}}}
steps:
  - {{id: sync, upload: workspace}}
  - id: iterate
    repeat: {{max: 3, until: steps.build.result.done}}
    steps:
      - id: build
        on: container
        container: box
        agent: builder
        prompt: {{text: "This is round ${{{{ iteration }}}}."}}
        session: builder
        timeout: 80s
        result: {{path: "builder/iter-${{{{ iteration }}}}/result.json", schema: done.json}}
"""
AGENTS = {
    "codex": {"use": "codex", "model": "gpt-5.2-codex", "key": "OPENAI_API_KEY", "api": "openai"},
    "claude": {"use": "claude-code", "model": "claude-sonnet-5", "key": "ANTHROPIC_API_KEY", "api": "anthropic"},
}
NOT_YET, DONE = {"result": {"done": False}}, {"result": {"done": True}}


@pytest.fixture(params=AGENTS)
def agent(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def pipeline(control: Control, model: ModelServer, agent: str) -> str:
    control.env = {AGENTS[agent]["key"]: KEY}
    (control.folder / "done.json").write_text(json.dumps(SCHEMA))
    return PIPELINE.format(url=model.url, **AGENTS[agent])


def rounds(model: ModelServer, *first: Mapping[str, object], then: Mapping[str, object] | None = None) -> None:
    """Let the agent answer round 1 with these replies, and a later one with `then`."""
    model.set(
        {
            "scenarios": [
                {"when": "This is round 1", "replies": [*(first or (NOT_YET,))]},
                {"when": "This is round 2|refused", "replies": [then or DONE]},
            ],
            "replies": [DONE],
        }
    )


def request_with(model: ModelServer, words: str) -> ReceivedRequest:
    """Return the first request whose last prompt has these words."""
    return next(request for request in model.requests if request.body and words in prompt_of(request))


def prompt_of(request: ReceivedRequest) -> str:
    return str(request.asked.prompt) if request.asked else ""


def attempts(ran: Ran) -> list[dict[str, object]]:
    return [event for event in ran.events if event["event"] == "command_started"]


def warnings(ran: Ran) -> str:
    return "\n".join(ran.state["warnings"])


def test_the_second_round_asks_the_model_with_the_turns_of_the_first(
    control: Control, model: ModelServer, agent: str
) -> None:
    rounds(model, {"shell": "echo made-in-round-one"}, NOT_YET)
    ran = control.run(pipeline(control, model, agent))
    assert ran.code == 0, ran.stdout + ran.stderr
    earlier = json.dumps(request_with(model, "This is round 2").body)
    assert "This is round 1" in earlier
    assert "made-in-round-one" in earlier
    first, second = attempts(ran)
    assert (first["session"] == "", second["session"] != "") == (True, True)
    assert warnings(ran) == ""
    shown = control.do("show", ran.record.name).stdout + control.do("logs", ran.record.name, "iterate[2].build").stdout
    assert "sessions/" not in shown
    (kept,) = (ran.record / "sessions").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600


def test_what_an_agent_puts_beside_its_transcripts_stays_behind(control: Control, model: ModelServer) -> None:
    evil = """cd ~/.codex/sessions; ln -s /etc/passwd rollout-1.jsonl; mkfifo rollout-2.jsonl; ln -s / root
        head -c 900000000 /dev/zero >rollout-3.jsonl; echo x >"$(printf 'rollout-\\n.jsonl')"; echo x >auth.json"""
    look = {"shell": "find ~/.codex/sessions -type f -o -type l -o -type p | sed 's/^/FO''UND /'"}
    model.set(
        {
            "scenarios": [{"when": "This is round 1", "replies": [{"shell": evil}, NOT_YET]}],
            "replies": [look, DONE],
        }
    )
    ran = control.run(pipeline(control, model, "codex"))
    assert ran.code == 0, ran.stdout + ran.stderr
    found = [line for line in ran.log("iterate[2].build").replace("\\n", "\n").splitlines() if "FOUND " in line]
    assert found
    assert all("rollout-" in line for line in found), found


def test_a_token_in_a_transcript_starts_the_next_round_cold(control: Control, model: ModelServer) -> None:
    # Codex hides its token from its commands' environment, and no further.
    rounds(model, {"shell": "cat /proc/*/environ | tr '\\0' '\\n'"}, NOT_YET)
    ran = control.run(pipeline(control, model, "codex"))
    assert ran.code == 0, ran.stdout + ran.stderr
    assert "secret" in warnings(ran)
    assert [started["session"] for started in attempts(ran)] == ["", ""]
    assert "This is round 1" not in json.dumps(request_with(model, "This is round 2").body)
    assert [kept.name for kept in (ran.record / "sessions").iterdir()] == ["iterate-2.build-2.tgz"]


def test_a_result_against_its_schema_goes_back_to_the_same_session(
    control: Control, model: ModelServer, agent: str
) -> None:
    model.set({"scenarios": [{"when": "refused", "replies": [DONE]}], "replies": [{"text": '{"done": "perhaps"}'}]})
    ran = control.run(pipeline(control, model, agent))
    assert ran.code == 0, ran.stdout + ran.stderr
    again = json.dumps(request_with(model, "refused").body)
    assert "$.done" in again
    assert "This is round 1" in again
    assert "does not match its schema: $.done" in ran.stdout
    assert "asked again" in ran.stdout
    assert [event["attempt"] for event in attempts(ran)] == [1, 1]


def test_a_killed_run_goes_on_with_the_session_at_another_controller(
    control: Control, model: ModelServer, tmp_path: Path
) -> None:
    model.set(
        {
            "scenarios": [{"when": "This is round 1", "replies": [NOT_YET]}],
            "replies": [{**DONE, "delay_s": 5}],
        }
    )

    def kill(process: subprocess.Popen[str], record: Path) -> None:
        wait_until(lambda: happened(record, "sessions/iterate-1.build-1.tgz"), 60)
        os.kill(process.pid, signal.SIGKILL)

    killed = control.run(pipeline(control, model, "codex"), meanwhile=kill)
    moved = tmp_path / "other" / ".system" / "runs" / killed.record.name
    moved.parent.mkdir(parents=True)
    killed.record.rename(moved)
    resumed = subprocess.run(
        [sys.executable, "-m", "pccpipe", "resume", moved.name, "--runs-dir", str(moved.parent)],
        cwd=moved.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT), **control.env},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    ran = Ran(0, resumed.stdout, resumed.stderr, moved)
    assert "This is round 1" in json.dumps(request_with(model, "This is round 2").body)
    assert attempts(ran)[-1]["session"]


def test_the_session_goes_on_after_a_person_has_answered(control: Control, model: ModelServer) -> None:
    question = "<<<NEED_HELP>>>\nwhat_i_need: a host\ninputs: [{key: host, label: The host}]\n<<<END_HELP>>>"
    rounds(model, {"result": {"done": False, "escalation": question}})
    text = pipeline(control, model, "codex")
    schema = {**SCHEMA, "properties": {"done": {"type": "boolean"}, "escalation": {"type": "string"}}}
    (control.folder / "done.json").write_text(json.dumps(schema))
    asked = control.run(text)
    assert asked.code == 5, asked.stdout + asked.stderr
    assert control.do("answer", asked.record.name, "host=db1").returncode == 0
    resumed = control.do("resume", asked.record.name)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    earlier = json.dumps(request_with(model, "This is round 2").body)
    assert "This is round 1" in earlier
    assert [started["session"] != "" for started in attempts(asked)] == [False, True]
