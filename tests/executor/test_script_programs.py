"""The program of a script, and the PATH of an agent, in the executor."""

from __future__ import annotations

import pytest

from pccpipe.errors import SpecError
from pccpipe.outcome import Code, Outcome, Place
from pccpipe.search_path import reaches_workspace
from pccpipe.spec.load import load_pipeline
from pccpipe.spec.model import Run
from pccpipe.target import Exit
from pccpipe.targets.dummy import Play
from tests.executor.rehearsal import Stage


@pytest.mark.parametrize("key", ["shell: python3 -u, run: x", "run: '#!/usr/bin/env python3'"])
@pytest.mark.parametrize(
    ("where", "fix"),
    [("on: local", "install python3"), ("on: vm", "install python3"), ("container: box", "use an image that has it")],
)
def test_a_missing_interpreter_fails_and_never_falls_back(stage: Stage, key: str, where: str, fix: str) -> None:
    stage.script = lambda command: Play(exit=Exit(127))
    fallback = "" if "local" in where else ", fallback: {on: local}"
    run = stage.play(f"containers: {{box: {{image: i}}}}\nsteps: [{{id: a, {where}, {key}{fallback}}}]")
    end = run.end_of("a")
    assert (end.outcome, end.code, end.exit_code) == (Outcome.FAILED, Code.INTERPRETER_MISSING, 127)
    assert fix in end.message
    assert len(run.order) == 1


def test_a_shells_exit_code_of_127_is_its_scripts(stage: Stage) -> None:
    stage.script = lambda command: Play(exit=Exit(127))
    for shell in ("sh", "bash -l", "/bin/bash"):
        end = stage.play(f"steps: [{{id: a, shell: {shell}, run: no-such}}]").end_of("a")
        assert (end.code, end.message) == (None, "exit code 127")


def test_a_fallback_has_the_shell_of_its_own_script(stage: Stage) -> None:
    text = """
        defaults: {shell: bash}
        steps:
          - {id: a, on: vm, shell: perl, run: x, fallback: {on: local}}
          - {id: b, on: vm, shell: perl, run: x, fallback: {on: local, run: "#!/usr/bin/python3\\nx"}}
          - {id: c, on: vm, run: "#!/bin/sh -u\\nx", fallback: {on: local, shell: sh}}
          - {id: d, on: vm, run: "#!/usr/bin/env ruby\\nx", fallback: {on: local, run: y}}
    """
    stage.play(text)
    bodies = [step.body for step in load_pipeline(stage.folder / "pipeline.yaml").all_steps()]
    hosts = [(body.where, body.fallback) for body in bodies if isinstance(body, Run)]
    shells = [(where.command_line, fallback.command_line) for where, fallback in hosts if fallback]
    assert shells == [
        ("perl", "perl"),
        ("perl", "/usr/bin/python3"),
        ("sh -u -e", "sh -e"),
        ("ruby", "bash -e -o pipefail"),
    ]


AGENT = """
    inputs: {folder: {type: string, default: bin}}
    agents: {codex: {use: codex, model: m, secret: KEY}}
    secrets: {KEY: {from: env}}
    containers: {box: {image: i}}
    steps: [{id: build, container: box, agent: codex, prompt: {text: x}, env: {PATH: "PLACE:$PATH"}}]
"""


@pytest.mark.parametrize("entry", ["bin", "./bin", "/workspace", "/workspace/tools"])
def test_no_agent_is_found_in_the_workspace(stage: Stage, entry: str) -> None:
    stage.secrets = {"KEY": "sk-made-up-0123456789"}
    with pytest.raises(SpecError, match="could replace the program that gets the model"):
        stage.play(AGENT.replace("PLACE", entry))
    hidden = AGENT.replace("default: bin", f"default: {entry}").replace("PLACE", "${{ inputs.folder }}")
    run = stage.play(hidden)
    assert run.end_of("build").outcome is Outcome.FAILED
    assert "a folder of the workspace is in its PATH" in run.end_of("build").message
    assert not run.targets[Place.CONTAINER].commands
    assert stage.play(AGENT.replace("PLACE", "/opt/tools")).order == ["build@container"]


@pytest.mark.parametrize(
    "entry", ["/workspace", "//workspace/bin", "/usr/../workspace/bin", "/proc/self/cwd/bin", "./bin"]
)
def test_no_spelling_hides_a_folder_of_the_workspace_in_a_path(entry: str) -> None:
    assert reaches_workspace(f"/usr/bin:{entry}")
    assert not reaches_workspace("$PATH:/usr/bin::/workspaces/bin:/opt/../usr/bin")
