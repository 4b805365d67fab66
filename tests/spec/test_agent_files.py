"""Agent files: the built-in ones and a user's own are read by the same rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from pccpipe.data_files import agent_path, built_in_agents
from pccpipe.errors import SpecError
from pccpipe.spec.agent_file import agent_problems, read_agent
from pccpipe.spec.load import load_pipeline
from pccpipe.spec.model import Run

ROOT = Path(__file__).resolve().parents[2]
FILES = [*map(agent_path, built_in_agents()), *sorted((ROOT / "examples/agents").glob("*.yaml"))]
PIPELINE = """
version: 1
name: p
secrets: {KEY: {from: env, via: proxy}}
agents: {mine: {use: ./mine.yaml, model: m, secret: KEY}}
containers: {box: {image: i}}
steps:
  - {id: build, container: box, agent: mine, prompt: {text: "${{ files['order.md'] }}"}, files: {order.md: {text: it}}}
"""
AGENT = "version: 1\nname: mine\nprogram: mine\napi: anthropic\nin_container: exec mine\n"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_agent_file_is_fine(path: Path) -> None:
    assert agent_problems(path) == []
    assert read_agent(path).program


def load(folder: Path, agent: str, pipeline: str = PIPELINE) -> Run:
    (folder / "mine.yaml").write_text(agent)
    (folder / "p.yaml").write_text(pipeline)
    body = load_pipeline(folder / "p.yaml").steps[0].body
    assert isinstance(body, Run)
    return body


def test_a_prompt_may_lie_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my prompt.md").write_text("do it")
    body = load(tmp_path, AGENT, PIPELINE.replace("{text: \"${{ files['order.md'] }}\"}", "~/my prompt.md"))
    assert body.agent
    assert body.agent.prompt.content.source == "do it"


def test_a_users_agent_file_is_enough(tmp_path: Path) -> None:
    body = load(tmp_path, AGENT)
    assert body.agent
    assert body.agent.agent.description.program == "mine"
    assert body.secrets == ("KEY",)
    assert load_pipeline(tmp_path / "p.yaml").files == {"./mine.yaml": tmp_path / "mine.yaml"}


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        (AGENT.replace("api: anthropic", "api: acme"), "mine.yaml:4:6: invalid `api`"),
        (AGENT + "speed: 3\n", "mine.yaml:6:1: unknown key `speed`"),
        (AGENT.replace("in_container: exec mine\n", ""), "needs the key `in_container`"),
        (AGENT + "before: echo ${{ inputs.x }}\n", "invalid `before`"),
        (AGENT + "session: {folder: ../.ssh, files: ['*']}\n", "invalid `folder`"),
        (AGENT + "events: [{match: {'a[].b': 1, 'c[].d': 2}, as: message}]\n", "reads two lists"),
        ("a: [", "mine.yaml:1:"),
    ],
)
def test_a_broken_agent_file_is_a_problem_with_its_place(tmp_path: Path, agent: str, words: str) -> None:
    with pytest.raises(SpecError) as raised:
        load(tmp_path, agent)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("agent: mine", "agent: nine", "there is no agent `nine`"),
        ("agent: mine", "agent: [mine, other]", "there is no agent `other`"),
        ("use: ./mine.yaml", "use: codx", "there is no built-in agent `codx`"),
        ("use: ./mine.yaml", "use: ./none.yaml", "there is no file"),
        ("secret: KEY", "secret: KAY", "there is no secret `KAY`"),
        ("container: box, agent", "on: local, agent", "runs only in containers"),
        ("container: box, agent", "container: box, fallback: {on: local}, agent", "may run on `local`"),
        ("agent: mine,", "agent: mine, session: s,", "cannot continue a session"),
        ("agent: mine,", "agent: mine, repair: 2,", "`repair` has no effect"),
        (
            "{text: \"${{ files['order.md'] }}\"}",
            f"Do what it says {'x' * 300}",
            "the path of a file, not the text itself",
        ),
        ("{text: \"${{ files['order.md'] }}\"}", "none.md", "there is no file"),
        ('{text: "', '{file: "', "write the path of the file itself"),
        ("agent: mine,", "agent: mine, fallback: {on: vm, run: x},", "the fallback of an agent takes no `run`"),
        ("agent: mine,", "agent: mine, shell: bash,", "`shell` cannot be combined with `agent`"),
        ("agent: mine,", "agent: mine, run: x,", "`run` cannot be combined with `agent`"),
        ("files['order.md']", "files['other.md']", "the step has no file `other.md`"),
        ("agent: mine, prompt", "run: x, prompt", "`prompt` cannot be combined with `run`"),
    ],
)
def test_a_wrong_agent_step_is_a_problem_with_its_place(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in PIPELINE
    with pytest.raises(SpecError) as raised:
        load(tmp_path, AGENT, PIPELINE.replace(old, new, 1))
    assert words in str(raised.value)
    assert str(tmp_path / "p.yaml") in str(raised.value)
