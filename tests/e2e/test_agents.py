"""An agent's result decides, not its exit code or its words; and it cannot change its inputs."""

from __future__ import annotations

import json

import pytest

from tests.e2e.control import Control, containers
from tests.testbed.model import ModelServer

AGENT = """
inputs: {endpoint: {type: string}}
secrets: {OPENAI_API_KEY: {from: env}}
containers: {agent: {image: "pcc-runner:latest", network: host}}
steps:
  - id: sync
    upload: workspace
  - id: build
    on: container
    container: agent
    run: |
      pcc-codex --json --ephemeral --skip-git-repo-check --dangerously-bypass-approvals-and-sandbox \\
        -C "$PCC_WORKSPACE" -m gpt-5.2-codex -c openai_base_url=${{ inputs.endpoint }} \\
        -o "$PCC_OUT/result.json" - <"$PCC_IN/prompt.md"
    files: {prompt.md: {text: Do it.}, schema.json: {schema: builder-result}}
    secrets: [OPENAI_API_KEY]
    timeout: 60s
    result: {path: "builder/iter-1/result.json", schema: builder-result}
    fallback: {on: local, run: "echo the fallback ran"}
"""
GOOD = {"summary": "s", "risks": [], "escalation": "", "tests": [], "changes": []}


def play(control: Control, model: ModelServer, *replies: dict[str, object], pipeline: str = AGENT) -> object:
    model.set({"replies": list(replies)})
    return control.run(pipeline, "--input", f"endpoint={model.url}/v1")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("All done!", "not valid JSON"),
        ('{"summary": "half', "not valid JSON"),
        ('{"summary": 1}', "does not match its schema"),
    ],
)
def test_codex_exiting_0_with_an_invalid_result_is_a_failed_step_with_its_cause(
    control: Control, model: ModelServer, said: str, expected: str
) -> None:
    model.set({"replies": [{"text": said}]})
    ran = control.run(AGENT, "--input", f"endpoint={model.url}/v1")
    step = ran.step("build")
    assert ran.code == 1
    assert (step["outcome"], step["attempts"][-1]["exit_code"]) == ("failed", 0)
    assert expected in step["message"]
    assert len(step["attempts"]) == 1
    assert not ran.state["downgraded"]


def test_codex_exiting_0_without_a_result_is_a_failed_step_with_its_cause(control: Control, model: ModelServer) -> None:
    model.set({"replies": [{"text": "All done!"}]})
    ran = control.run(
        AGENT.replace("$PCC_OUT/result.json", "$PCC_OUT/other.json"), "--input", f"endpoint={model.url}/v1"
    )
    assert ran.code == 1
    assert "missing" in ran.step("build")["message"]


def test_a_transcript_about_denied_permissions_and_docker_causes_no_fallback(
    control: Control, model: ModelServer
) -> None:
    words = "permission denied; docker: command not found; Cannot connect to the Docker daemon"
    model.set(
        {
            "replies": [
                {"shell": f"echo '{words}' >&2; docker ps; cat /etc/shadow"},
                {"text": json.dumps({**GOOD, "summary": words})},
            ]
        }
    )
    ran = control.run(AGENT, "--input", f"endpoint={model.url}/v1")
    assert ran.code == 0, ran.stdout + ran.stderr
    assert "permission denied" in ran.log("build")
    assert "docker: command not found" in ran.log("build")
    assert not ran.state["downgraded"]
    assert ran.step("build")["attempts"][-1]["had"]["place"] == "container"


def test_a_wrong_key_is_a_failed_step_and_no_fallback(control: Control, model: ModelServer) -> None:
    control.env["OPENAI_API_KEY"] = "sk-wrong-key-altogether"
    ran = control.run(AGENT, "--input", f"endpoint={model.url}/v1")
    assert ran.code == 1
    assert ran.step("build")["attempts"][-1]["exit_code"] == 1
    assert "401" in ran.log("build")


def test_the_agent_cannot_rewrite_its_prompt_its_schema_or_an_earlier_result(
    control: Control, model: ModelServer
) -> None:
    attack = """
        echo hacked > /pcc/in/prompt.md; echo hacked > /pcc/in/schema.json; unlink /pcc/in/prompt.md
        chmod -R u+w /pcc/in; mv /pcc/in /pcc/other; ls -la / /pcc /pcc/out; cat /pcc/in/prompt.md
        find / -path /proc -prune -o -name result.json -size +0c -print 2>/dev/null | sed "s/^/FOU${x}ND:/"
        echo; echo HOME=$HOME CODEX_HOME=$CODEX_HOME; id -u
    """
    model.set({"replies": [{"shell": attack}, {"text": json.dumps(GOOD)}]})
    second = AGENT + AGENT[AGENT.index("  - id: build") :].replace("id: build", "id: again").replace("iter-1", "iter-2")
    ran = control.run(second, "--input", f"endpoint={model.url}/v1")
    assert ran.code == 0, ran.stdout + ran.stderr
    log = ran.log("again", "stdout").replace("\\n", "\n")
    assert "Read-only file system" in log
    assert "Do it." in log
    assert "FOUND:" not in log
    assert json.loads((ran.record / "builder/iter-1/result.json").read_text()) == GOOD


def test_the_home_of_the_agent_is_not_the_workspace_and_its_files_belong_to_the_owner(
    control: Control, model: ModelServer
) -> None:
    check = "echo HOME=$HOME; mkdir -p sub; touch sub/made; id -u; ls -a"
    model.set({"replies": [{"shell": check}, {"text": json.dumps(GOOD)}]})
    pipeline = AGENT + "  - {id: owners, on: vm, run: \"find . -exec stat -c '%U %n' {} +\"}\n"
    ran = control.run(pipeline, "--input", f"endpoint={model.url}/v1")
    assert ran.code == 0, ran.stdout + ran.stderr
    assert "HOME=/pcc/home" in ran.log("build")
    owners = ran.log("owners").split("\n")
    assert "pcc ./sub/made" in owners
    assert not [line for line in owners if line.startswith("root")]
    assert not [line for line in owners if "auth.json" in line or ".codex" in line]


def test_a_time_limit_keeps_the_output_so_far_and_removes_the_container(control: Control, model: ModelServer) -> None:
    model.set({"replies": [{"shell": "echo made it here; sleep 100", "yield_time_ms": 60000}, {"text": "{}"}]})
    assert control.vm is not None
    ran = control.run(AGENT.replace("timeout: 60s", "timeout: 5s"), "--input", f"endpoint={model.url}/v1")
    assert ran.code == 1
    assert ran.step("build")["outcome"] == "timed_out"
    assert "thread.started" in ran.log("build")
    assert not [name for name in containers(control.vm) if ran.record.name[:8] in name]
    assert not ran.state["downgraded"]
