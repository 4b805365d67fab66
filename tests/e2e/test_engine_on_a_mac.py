"""Runs on a Mac's own engine, which is in a VM: pccpipe finds it without a setting and checks it before a command."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.control import DEMO, KEY, ROOT, Control
from tests.fake_mac import FakeMac
from tests.targets.test_engine_vm import hidden_from
from tests.testbed.engine import Engine
from tests.testbed.model import ModelServer


@pytest.fixture
def colima(tmp_path: Path, mac: FakeMac, local_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Control:
    """A control centre on a Mac with colima's socket, which no setting names."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    socket = mac.folder / "colima/default/docker.sock"
    socket.parent.mkdir(parents=True)
    socket.symlink_to(local_engine.socket)
    env = {"OPENAI_API_KEY": KEY, "COLIMA_HOME": str(mac.folder / "colima")}
    return Control(tmp_path, env=env, mode="container", mac=mac)


def test_the_default_pipeline_with_the_real_agent_in_containers_of_a_macs_engine(
    colima: Control, tmp_path: Path
) -> None:
    shutil.copytree(DEMO / "project", colima.workspace, dirs_exist_ok=True)
    scenario = json.loads((DEMO / "scenario.json").read_text())
    with ModelServer(key=KEY, scenario=scenario) as model:
        ran = colima.run(
            ROOT / "pipelines/default-run.yaml",
            *("--input", f"work_order={DEMO / 'work-order.md'}", "--input", "test=sh test.sh"),
            *("--input", f"endpoint={model.url}/v1"),
        )
    assert ran.code == 0, ran.stdout + ran.stderr
    assert not ran.state["downgraded"]
    assert ran.step("iterate[1].build")["attempts"][-1]["had"]["place"] == "container"
    subprocess.run(["git", "apply", str(ran.record / "diff.patch")], cwd=colima.workspace, check=True)
    subprocess.run(["sh", "test.sh"], cwd=colima.workspace, check=True, capture_output=True)


def test_a_folder_that_a_macs_engine_does_not_share_ends_the_step_without_a_fallback(
    colima: Control, local_engine: Engine, tmp_path: Path
) -> None:
    (tmp_path / ".system/runs").mkdir(parents=True)
    with hidden_from(local_engine, tmp_path / ".system"):
        ran = colima.run("""
            containers: {box: {image: "bb:latest", network: none}}
            steps:
              - {id: up, upload: workspace}
              - {id: inside, on: container, container: box, run: "echo began", fallback: {on: local}}
        """)
    assert ran.code == 3, ran.stdout + ran.stderr
    (attempt,) = ran.step("inside")["attempts"]
    assert (attempt["outcome"], attempt["reason"]) == ("unavailable", "workspace_refused")
    assert "does not see all folders of this machine" in ran.stdout
    assert "--runs-dir" in ran.stdout
