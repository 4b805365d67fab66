"""An image without the agent's program fails the step with words and a code for that."""

from __future__ import annotations

from tests.e2e.control import KEY, Control

PIPELINE = """
agents: {claude: {use: claude-code, model: a-model, secret: MODEL_KEY}}
secrets: {MODEL_KEY: {from: env, via: proxy, api: anthropic, upstream: "http://127.0.0.1:9"}}
containers: {bare: {image: "bb:latest", network: none}}
steps:
  - {id: sync, upload: workspace}
  - id: build
    on: container
    container: bare
    agent: claude
    prompt: {text: "Do it."}
"""


def test_an_image_without_the_program_of_its_agent_is_named(control: Control) -> None:
    control.env = {"MODEL_KEY": KEY}
    ran = control.run(PIPELINE)
    ended = ran.step("build")
    assert (ended["outcome"], ended["code"]) == ("failed", "agent_missing"), ran.stdout
    assert "its image has no program claude for the agent claude (exit code 127): use one that has it" in ran.stdout
