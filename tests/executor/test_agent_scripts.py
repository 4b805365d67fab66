"""Runs the scripts of agent steps in a real shell, with a program in the agent's place that says what it got."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pccpipe.data_files import agent_path, built_in_agents
from pccpipe.spec.agent_file import read_agent
from pccpipe.target import Command
from pccpipe.targets.dummy import Play
from tests.executor.rehearsal import NotedWorkspace, Stage

PIPELINE = """
agents: {{it: {{use: {agent}, model: m, secret: {secret}}}}}
secrets: {{{secret}: {{from: env}}}}
containers:
  box: {{image: i}}
  reader: {{extends: box, workspace: read-only}}
steps:
  - {{id: build, on: {on}, agent: it, prompt: {{text: Do the work}}, timeout: 40m}}
"""
OWN = """
version: 1
name: own
program: own
api: openai
in_container: |
  echo "key=$PCC_KEY model=$PCC_MODEL"
  env | grep -c a-made-up-key || true
"""


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def commands(stage: Stage, pipeline: str) -> list[Command]:
    """Return the commands of a pipeline's steps."""
    stage.script = lambda command: Play()
    played = stage.play(pipeline)
    return [command for target in played.targets.values() for command in target.commands]


def run(command: Command, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command's script, with programs that only say how they were called."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    for name in ("codex", "claude"):
        (programs / name).write_text('#!/bin/sh\ncat >/dev/null; echo called "$@"; env\n')
        (programs / name).chmod(0o755)
    around = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(folder), "PCC_WORKSPACE": str(folder), "PCC_IN": "/dev"}
    return subprocess.run(
        [*command.shell.split(), "-c", command.script],
        env={**around, "PCC_OUT": str(folder), **command.env, **command.secrets, **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("agent", built_in_agents())
def test_an_agent_outside_does_not_begin_without_a_folder_for_its_settings(
    stage: Stage, agent: str, tmp_path: Path
) -> None:
    stage.secrets = {"KEY": "a-made-up-key"}
    (command,) = commands(stage, PIPELINE.format(agent=agent, secret="KEY", on="local"))
    (tmp_path / "prompt.md").touch()
    ran = run(command, tmp_path, PCC_IN=str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    assert "called" in ran.stdout
    assert "CODEX_HOME=/" in ran.stdout or "CLAUDE_CONFIG_DIR=/" in ran.stdout
    ran = run(command, tmp_path, PCC_IN=str(tmp_path), TMPDIR="/nonexistent")
    assert ran.returncode != 0
    assert "called" not in ran.stdout


@pytest.mark.parametrize(
    ("target", "counts"), [("AGENTS.md", True), ("/proc/self/environ", False), ("../outside.md", False), ("no", False)]
)
def test_claude_code_gets_no_text_from_outside_of_the_workspace(
    stage: Stage, target: str, tmp_path: Path, *, counts: bool
) -> None:
    """A link as CLAUDE.md may lead anywhere, such as to the variables of the program that reads it."""
    stage.secrets = {"KEY": "a-made-up-key"}
    pipeline = PIPELINE.format(agent="claude-code", secret="KEY", on="container, container: box")
    (command,) = commands(stage, pipeline)
    workspace = tmp_path / "w"
    workspace.mkdir()
    (tmp_path / "prompt.md").touch()
    (tmp_path / "outside.md").write_text("SECRET-TEXT")
    (workspace / "AGENTS.md").write_text("PROJECT-TEXT")
    (workspace / "CLAUDE.md").symlink_to(target)
    ran = run(command, tmp_path, PCC_IN=str(tmp_path), PCC_WORKSPACE=str(workspace))
    assert ran.returncode == 0, ran.stderr
    (called,) = [line for line in ran.stdout.splitlines() if line.startswith("called ")]
    assert ("PROJECT-TEXT" in called) is counts
    assert ("CLAUDE.md of the project" in called) is counts
    assert "a-made-up-key" not in called
    assert "SECRET-TEXT" not in called


@pytest.mark.parametrize("place", ["container, container: box", "local"])
@pytest.mark.parametrize("name", ["AGENTS.md", "AGENTS.override.md"])
@pytest.mark.parametrize(("target", "counts"), [("README", True), ("/proc/self/environ", False), ("../outside", False)])
def test_codex_gets_no_text_from_outside_of_the_workspace(
    stage: Stage, place: str, name: str, target: str, tmp_path: Path, *, counts: bool
) -> None:
    stage.secrets = {"KEY": "a-made-up-key"}
    (command,) = commands(stage, PIPELINE.format(agent="codex", secret="KEY", on=place))
    workspace, link = tmp_path / "w", tmp_path / "link"
    workspace.mkdir()
    # A user's own folder may be behind a link.
    link.symlink_to(workspace)
    (tmp_path / "prompt.md").touch()
    for path in (tmp_path / "outside", workspace / "README"):
        path.touch()
    (workspace / name).symlink_to(target)
    ran = run(command, tmp_path, PCC_IN=str(tmp_path), PCC_WORKSPACE=str(link), CODEX_HOME=str(tmp_path / "codex"))
    assert ran.returncode == 0, ran.stderr
    assert ("project_doc_max_bytes=0" not in ran.stdout) is counts


def test_claude_code_outside_has_no_tool_that_runs_a_command() -> None:
    script = read_agent(agent_path("claude-code")).outside
    assert "--tools Read,Grep,Glob,Edit,Write " in script


@pytest.mark.parametrize("secret", ["KEY", "PCC_KEY", "PCC_MODEL", "PCC_TRUSTED"])
def test_a_secret_may_have_the_name_of_a_variable_of_the_scripts(stage: Stage, secret: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(OWN)
    stage.secrets = {secret: "a-made-up-key"}
    pipeline = PIPELINE.format(agent="./own.yaml", secret=secret, on="container, container: box")
    (command,) = commands(stage, pipeline)
    assert run(command, tmp_path).stdout == "key=a-made-up-key model=m\n0\n"


@pytest.mark.parametrize(("box", "has_setting"), [("box", True), ("reader", False)])
def test_git_base_takes_no_variable_from_a_read_only_workspace(
    stage: Stage, box: str, *, has_setting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its container has one that keeps git from folders that only look like repositories."""
    monkeypatch.setattr(NotedWorkspace, "has_git", True)
    stage.secrets = {"KEY": "a-made-up-key"}
    pipeline = PIPELINE.format(agent="codex", secret="KEY", on=f"container, container: {box}")
    (command,) = commands(stage, pipeline)
    assert any(name.startswith("GIT_CONFIG") for name in command.env) is has_setting
