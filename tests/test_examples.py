"""Every example is valid, by pccpipe's check and by its published schema; those that can run do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.control import DEMO, KEY, ROOT, Control, wait_until
from tests.testbed.engine import Engine
from tests.testbed.model import ModelServer

FOLDERS = ("examples/pipelines", "examples/conversions", "pipelines")
PIPELINES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.yaml"))


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_an_example_is_a_good_pipeline(path: Path) -> None:
    argv = [sys.executable, "-m", "pccpipe", "validate", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    check = [str(Path(sys.executable).with_name("check-jsonschema")), "--schemafile", "schemas/pipeline.schema.json"]
    subprocess.run([*check, str(path)], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("name", ["local", "matrix", "parallel"])
def test_a_local_example_runs(local_control: Control, name: str) -> None:
    ran = local_control.run(ROOT / f"examples/pipelines/{name}.yaml")
    assert ran.code == 0, ran.stdout + ran.stderr


def test_a_result_gives_the_legs_of_a_matrix_and_a_step_sums_theirs_up(local_control: Control) -> None:
    ran = local_control.run(ROOT / "examples/pipelines/matrix-of-a-result.yaml", "--input", "sizes=1,100")
    assert ran.code == 0, ran.stdout + ran.stderr
    assert "sizes: 3 4 300 400" in (ran.record / "logs/sum-1.stdout.log").read_text()


def test_tests_in_a_container_run_on_the_vm(control: Control) -> None:
    shutil.copytree(DEMO / "project", control.workspace, dirs_exist_ok=True)
    pipeline = ROOT / "examples/pipelines/tests-in-a-container.yaml"
    ran = control.run(pipeline, "--input", "test=sh test.sh", "--input", "image=node:20-slim")
    assert ran.code == 0, ran.stdout + ran.stderr
    assert ran.step("test")["attempts"][-1]["had"]["network"] == "none"
    assert (ran.record / "artifacts/test-results/report.txt").exists()


def test_an_own_pipeline_runs_with_one_builder(control: Control, model: ModelServer) -> None:
    control.run_as = True  # its builder's `isolation: required` refuses a result that a VM step could forge
    shutil.copytree(DEMO / "project", control.workspace, dirs_exist_ok=True)
    scenario = json.loads((DEMO / "scenario.json").read_text())
    fixing = next(each for each in scenario["scenarios"] if "tests failed" in each["when"])
    model.set({"replies": fixing["replies"]})
    ran = control.run(
        ROOT / "examples/pipelines/own-project.yaml",
        *("--input", f"work_order={DEMO / 'work-order.md'}", "--input", f"endpoint={model.url}/v1"),
    )
    assert ran.code == 0, ran.stdout + ran.stderr
    assert ran.step("image")["facts"]["built"] is False
    assert "--max" in (ran.record / "diff.patch").read_text()


def test_in_mode_container_containers_run_on_the_local_engine(
    tmp_path: Path, local_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Like an engine in a small VM of its own that no setting names.
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    colima = tmp_path / "colima"
    (colima / "default").mkdir(parents=True)
    (colima / "default/docker.sock").symlink_to(local_engine.socket)
    control = Control(tmp_path, env={"OPENAI_API_KEY": KEY, "COLIMA_HOME": str(colima)}, mode="container")
    (control.workspace / "a.txt").write_text("one\n")
    (control.workspace / "image").mkdir()
    (tmp_path / "image").mkdir()
    (tmp_path / "image/Dockerfile").write_text("FROM bb:latest\nENV BUILT=yes\n")
    ran = control.run("""
        containers: {box: {image: "pccpipe-test:latest", network: none}}
        steps:
          - {id: image, build: {image: "pccpipe-test:latest", context: image}}
          - {id: sync, upload: workspace}
          - {id: here, on: vm, run: echo two >> a.txt}
          - {id: inside, on: container, container: box, run: 'echo "three $BUILT" >> a.txt; cat a.txt'}
          - {id: changes, diff: diff.patch}
    """)
    assert ran.code == 0, ran.stdout + ran.stderr
    assert ran.log("inside") == "one\ntwo\nthree yes\n"
    assert not ran.state["downgraded"]
    had = ran.step("inside")["attempts"][-1]["had"]
    assert (had["place"], had["host"]) == ("container", "localhost")
    assert "+three yes" in (ran.record / "diff.patch").read_text()
    assert (control.workspace / "a.txt").read_text() == "one\n"
    assert local_engine.docker("ps", "-aq", "--filter", f"label=pccpipe.run={ran.record.name}") == ""


@pytest.mark.parametrize("setting", ["DOCKER_HOST", "DOCKER_CONTEXT"])
def test_in_mode_container_an_engine_elsewhere_is_refused_before_a_run_begins(tmp_path: Path, setting: str) -> None:
    value = "ssh://me@engine" if setting == "DOCKER_HOST" else "no-such-context"
    control = Control(tmp_path, mode="container", env={setting: value})
    fallback = "fallback: {on: local}"
    ran = control.run(f"""
        containers: {{box: {{image: "bb:latest", network: none}}}}
        steps: [{{id: inside, on: container, container: box, run: "true", {fallback}}}]
    """)
    assert (ran.code, ran.record.exists()) == (2, False)
    assert value in ran.stderr
    assert "hint: " in ran.stderr
    # Steps that need no engine run.
    assert control.run("steps: [{id: here, on: vm, run: 'true'}]").code == 0


def test_a_time_limit_ends_the_building_of_an_image(
    tmp_path: Path, local_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{local_engine.socket}")
    control = Control(tmp_path, mode="container")
    (tmp_path / "image").mkdir()
    (tmp_path / "image/Dockerfile").write_text("FROM bb:latest\nRUN echo began; sleep 345\n")
    ran = control.run("""
        steps: [{id: image, build: {image: "pccpipe-test:slow", context: image}, timeout: 3s}]
    """)
    assert ran.code == 1
    assert ran.step("image")["outcome"] == "timed_out"
    assert "began" in next((ran.record / "logs").glob("*.build.log")).read_text()
    wait_until(lambda: local_engine.docker("ps", "-q") == "")
