"""A matrix of a result, for real: kill -9 and resume, and the containers and images that legs choose."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.control import ROOT, Control, Ran
from tests.e2e.test_resume import DRIVER, resume
from tests.testbed.engine import Engine

NAMES = ["a/b", "c],d\ne", "1].sum"]
LEGS = r"""
inputs: {sizes: {type: list, default: [1.20, 7]}}
steps:
  - id: plan
    run: cp "$LIST" "$PCC_OUT/plan.json"
    env: {LIST: "${{ run.folder }}/../../../plan.json"}
    result: {path: plan.json}
  - id: each
    matrix:
      size: ${{ inputs.sizes }}
      n: ${{ steps.plan.result | map(attribute='n') | list }}
      include: ${{ steps.plan.result }}
    max_parallel: 2
    run: |
      printf '%s\n' ${{ matrix.size }} >>count
      printf '%s\n' ${{ matrix.name | tojson }} >"$PCC_OUT/each.json"
    result: {path: "each/${{ matrix.n }}-${{ matrix.size }}/each.json"}
  - id: sum
    run: printf '%s\n' ${{ steps.each.results | map(attribute='result') | list | tojson }}
"""


def write_plan(control: Control, names: list[str]) -> None:
    plan = [{"n": number, "name": name} for number, name in enumerate(names)]
    (control.folder / "plan.json").write_text(json.dumps(plan))


def check(control: Control, ran: Ran) -> None:
    assert ran.code == 0, ran.stdout + ran.stderr
    assert json.loads(ran.log("sum")) == NAMES * 2
    assert sorted((control.workspace / "count").read_text().split()) == ["1.20"] * 3 + ["7"] * 3
    ends = [event["step"] for event in ran.events if event["event"] == "step_ended"]
    assert len(ends) == len(set(ends)) == 9


def test_a_run_killed_among_the_legs_of_a_result_is_resumed_with_the_same_legs(local_control: Control) -> None:
    control = local_control
    write_plan(control, NAMES)
    (control.workspace / "count").write_text("")
    whole = control.run(LEGS)
    check(control, whole)
    first = next(event["seq"] for event in whole.events if event.get("legs"))
    for life in (first, first + 4, first + 11):
        write_plan(control, NAMES)
        (control.workspace / "count").write_text("")
        argv, record = control.command(LEGS)
        pipeline, project = argv[4], str(control.folder / "project.yaml")
        arguments = [pipeline, project, str(control.workspace), str(record.parent), record.name, str(life)]
        done = subprocess.run(
            [sys.executable, "-c", DRIVER, *arguments],
            cwd=control.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        write_plan(control, ["other"])
        (record / "plan.json").write_text("[]")
        check(control, resume(control, record))


BOXES = """
containers:
  plain: {image: "bb:latest", network: none}
  made: {image: "pccpipe-test:${{ matrix.flavour }}", network: none}
steps:
  - {id: list, run: 'cp "$LIST" "$PCC_OUT/boxes.json"', env: {LIST: "${{ run.folder }}/../../../boxes.json"}, result: {path: boxes.json}}
  - {id: image, matrix: {flavour: [sweet, sour]}, build: {image: "pccpipe-test:${{ matrix.flavour }}", context: image, args: {TASTE: "${{ matrix.flavour }}"}}}
  - {id: taste, matrix: "${{ steps.list.result }}", container: "${{ matrix.box }}", continue_on_error: true, run: "echo taste: $TASTE"}
  - {id: ends, run: "echo ${{ steps.taste.results | map(attribute='outcome') | join(' ') }}"}
"""  # noqa: E501 - a step a line


def test_each_leg_runs_in_the_container_and_image_that_it_names(
    tmp_path: Path, local_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{local_engine.socket}")
    control = Control(tmp_path, mode="container")
    (tmp_path / "image").mkdir()
    (tmp_path / "image/Dockerfile").write_text("FROM bb:latest\nARG TASTE\nENV TASTE=$TASTE\n")
    boxes = [{"box": "plain"}, {"box": "made", "flavour": "sour"}, {"box": "mad"}, {"box": "made", "flavour": "sweet"}]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    ran = control.run(BOXES)
    assert ran.code == 0, ran.stdout + ran.stderr
    assert [ran.log(f"taste[{leg}]") for leg in ("box=plain", "box=made,flavour=sour", "box=made,flavour=sweet")] == [
        "taste:\n",
        "taste: sour\n",
        "taste: sweet\n",
    ]
    assert ran.log("ends") == "succeeded succeeded failed succeeded\n"
    assert "there is no container `mad`: did you mean `made`?" in ran.stdout
    had = ran.step("taste[box=made,flavour=sour]")["attempts"][-1]["had"]
    assert (had["image"], had["network"]) == ("pccpipe-test:sour", "none")
    assert local_engine.docker("ps", "-aq", "--filter", f"label=pccpipe.run={ran.record.name}") == ""
