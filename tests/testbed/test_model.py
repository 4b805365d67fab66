from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.testbed.engine import Engine
from tests.testbed.model import ModelServer
from tests.testbed.vm import VM

PATCH = "*** Begin Patch\n*** Add File: b.txt\n+from the patch\n*** End Patch"
SCENARIO = {
    "scenarios": [
        {
            "when": "two files",
            "replies": [
                {"shell": "env >a.txt; cat /proc/[0-9]*/environ >>a.txt"},
                {"patch": PATCH},
                {"text": "Wrote two files."},
            ],
        },
        {"when": "flaky", "replies": [{"text": "Done.", "fail": {"status": 500, "times": 1}}]},
    ]
}
DOCKER = "run --rm -i --network host --tmpfs /agent:mode=1777 -w /workspace --entrypoint /bin/sh"
CODEX = "pcc-codex --json --skip-git-repo-check --dangerously-bypass-approvals-and-sandbox --ephemeral"


def script(model: ModelServer, key: str, prompt: str) -> str:
    """Return the stdin of the container's shell: the key is in no argument list."""
    return f"""
        OPENAI_API_KEY={key}; HOME=/agent; CODEX_HOME=/agent/codex; export OPENAI_API_KEY HOME CODEX_HOME
        echo {shlex.quote(prompt)} | {CODEX} -c openai_base_url={model.url}/v1 -
    """


def run_agent(vm: VM, model: ModelServer, key: str, prompt: str) -> subprocess.CompletedProcess[str]:
    docker = f"docker {DOCKER} --user $(id -u):$(id -g) -v $PWD:/workspace pcc-runner:latest"
    return vm.ssh(f"rm -rf ~/w; mkdir ~/w && cd ~/w && {docker}", check=False, stdin=script(model, key, prompt))


def test_the_real_agent_does_what_the_scenario_says(vm: VM, model: ModelServer) -> None:
    model.set(SCENARIO)
    key = model.key or ""
    done = run_agent(vm, model, key, "make two files")

    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[-1]["type"] == "turn.completed"
    assert {request.authorization for request in model.requests if request.body} == {f"Bearer {key}"}
    assert vm.ssh("cat w/b.txt; stat -c %U w/a.txt w/b.txt").stdout.split("\n")[:3] == ["from the patch", "pcc", "pcc"]
    environment = vm.ssh("cat w/a.txt").stdout
    assert "PATH=" in environment
    assert key not in environment
    assert "OPENAI_API_KEY" not in environment


def test_a_failed_request_is_tried_again(vm: VM, model: ModelServer) -> None:
    model.set(SCENARIO)
    done = run_agent(vm, model, model.key or "", "flaky")
    assert done.returncode == 0, done.stderr
    assert "Done." in done.stdout


def test_a_wrong_key_fails_the_agent(vm: VM, model: ModelServer) -> None:
    done = run_agent(vm, model, "sk-wrong", "two files")
    assert done.returncode == 1
    assert "turn.failed" in done.stdout
    assert "401" in done.stdout


@pytest.mark.parametrize("key", ["", "''"])
def test_without_a_key_the_agent_does_not_start(vm: VM, model: ModelServer, key: str) -> None:
    done = run_agent(vm, model, key, "two files")
    assert done.returncode == 1
    assert "OPENAI_API_KEY is unset or empty" in done.stderr
    assert not model.requests


def test_the_local_engine_runs_the_same_image(local_engine: Engine, model: ModelServer, tmp_path: Path) -> None:
    assert local_engine.docker("run", "--rm", "--network", "none", "bb:latest", "echo", "hello") == "hello\n"
    docker = [*DOCKER.split(), "-v", f"{tmp_path}:/workspace", "--user", "0:0", "pcc-runner:latest"]
    assert '"text":"ok"' in local_engine.docker(*docker, stdin=script(model, model.key or "", "anything"))
