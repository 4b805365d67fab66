"""`via: proxy`, end to end: the real Codex in a container without a network, whose one way out is the proxy at home."""

from __future__ import annotations

from tests.e2e.control import KEY, Control
from tests.testbed.model import ModelServer

AGENT = """
inputs: {endpoint: {type: string}, budget: {type: integer, default: 1000000}}
secrets: {OPENAI_API_KEY: {from: env, via: proxy, upstream: "${{ inputs.endpoint }}"}}
containers: {agent: {image: "pcc-runner:latest", network: none}}
steps:
  - id: build
    on: container
    container: agent
    run: |
      codex exec --json --ephemeral --skip-git-repo-check --dangerously-bypass-approvals-and-sandbox \\
        -c model_provider=pcc -c model_providers.pcc.name=pcc -c model_providers.pcc.wire_api=responses \\
        -c model_providers.pcc.env_key=OPENAI_API_KEY -c "model_providers.pcc.base_url=$PCC_PROXY_URL" \\
        -c model_providers.pcc.supports_websockets=false \\
        -C "$PCC_WORKSPACE" -m gpt-5.2-codex -o "$PCC_OUT/result.json" - <"$PCC_IN/prompt.md"
    files: {prompt.md: {text: Do it.}}
    secrets: [OPENAI_API_KEY]
    max_tokens: ${{ inputs.budget }}
    timeout: 60s
    result: {path: "builder/iter-1/result.json"}
"""
DONE = {"text": '{"summary": "done"}'}


def test_codex_works_without_a_network_and_its_key_stays_at_home(control: Control, model: ModelServer) -> None:
    look = "env; cat /proc/*/environ | tr '\\0' '\\n'; ls /sys/class/net; ls -la /pcc/proxy"
    model.set({"replies": [{"shell": look}, DONE]})
    ran = control.run(AGENT, "--input", f"endpoint={model.url}/v1")
    assert ran.code == 0, ran.stdout + ran.stderr + ran.log("build") + ran.log("build", "stderr")
    assert {request.authorization for request in model.requests if request.body} == {f"Bearer {KEY}"}
    step = ran.step("build")
    assert step["attempts"][0]["secrets"] == {"OPENAI_API_KEY": "proxy"}
    assert step["attempts"][0]["had"]["network"] == "none"
    assert (step["model"]["calls"], step["model"]["input_tokens"], step["model"]["output_tokens"]) == (2, 200, 40)
    assert "OPENAI_API_KEY=***" in ran.log("build")
    assert KEY not in ran.log("build")
