"""`workspace: own` on real machines: legs side by side, each in its copy, at each place, also after `resume`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.control import Control, containers

PIPELINE = """
containers:
  box: {image: "pcc-runner:latest", network: none}
  root: {extends: box, user: root}
steps:
  - {id: sync, upload: {workspace: true, git: base}}
  - {id: deps, on: PLACE, run: "mkdir node_modules; echo dep >node_modules/dep"}
  - {id: roots, container: root, run: "mkdir locked; echo secret >locked/f; chmod 700 locked"}
  - id: legs
    matrix: {greeting: [hello, ../hi]}
    max_parallel: 2
    workspace: own
    repeat: {max: 1}
    steps:
      - id: change
        on: PLACE
        env: {GREETING: "${{ matrix.greeting }}"}
        run: |
          test ! -e report; echo "$GREETING" >report; echo "$GREETING" >>a; mkfifo pipe; ln -s /etc out
          cat node_modules/dep; git status --porcelain -- a
      - {id: boxed, container: box, run: "cat report; echo boxed >>a; echo x >.git/x || echo refused"}
      - {id: here, on: local, run: "cat a; ls .git/HEAD; echo here >>a"}
      - {id: back, container: box, run: "cat a"}
      - {id: get, download: [report, a]}
      - {id: patch, diff: "${{ 'hello' if matrix.greeting == 'hello' else 'hi' }}.patch"}
      - {id: escape, container: root, run: "ls -d /workspace/../own-workspaces 2>&1 || echo nothing beside it"}
  - {id: same, on: PLACE, run: "cat a; ls"}
  - {id: diff, diff: run.patch}
always:
  - {id: tidy, remove: workspace}
"""


@pytest.fixture(params=["vm", "run_as", "container"])
def control_of(request: pytest.FixtureRequest) -> Control:
    if request.param == "container":
        request.getfixturevalue("local_engine")
        control: Control = request.getfixturevalue("local_control")
        control.mode = "container"
        control.env |= {"DOCKER_HOST": request.getfixturevalue("local_engine").url}
        return control
    control = request.getfixturevalue("control")
    control.run_as = request.param == "run_as"
    return control


def nothing_left(control: Control, record: Path) -> None:
    assert not (record / "own-workspaces").exists()
    if control.vm:
        assert containers(control.vm, record.name) == []
        left = control.vm.sh(f"ls -d {control.vm.root}/.system/run-*/{record.name} 2>/dev/null || true").stdout
        assert left == ""


def test_legs_work_side_by_side_and_leave_what_was_asked_for(control_of: Control) -> None:
    (control_of.workspace / "a").write_text("a\n")
    ran = control_of.run(PIPELINE.replace("PLACE", "vm" if control_of.vm else "local"))
    assert ran.code == 0, ran.stdout + ran.stderr
    names = {"hello": "greeting=hello", "../hi": "greeting=../hi"}
    for greeting, leg in names.items():
        inside = f"legs[{leg}][1]"
        assert ran.log(f"{inside}.change") == "dep\n M a\n"
        assert ran.log(f"{inside}.boxed") == f"{greeting}\nrefused\n"
        assert ran.log(f"{inside}.here").startswith(f"a\n{greeting}\nboxed\n")
        assert ran.log(f"{inside}.back") == f"a\n{greeting}\nboxed\nhere\n"
        assert "nothing beside it" in ran.log(f"{inside}.escape")
        (folder,) = [
            each for each in (ran.record / "artifacts").iterdir() if (each / "report").read_text() == f"{greeting}\n"
        ]
        assert (folder / "a").read_text() == f"a\n{greeting}\nboxed\nhere\n"
        patch = (ran.record / f"{greeting.rpartition('/')[2]}.patch").read_text()
        assert f"+{greeting}\n+boxed\n+here\n" in patch
    assert len(list((ran.record / "artifacts").iterdir())) == 2
    assert ran.log("same").startswith("a\n")
    assert "report" not in ran.log("same")
    assert "boxed" not in (ran.record / "run.patch").read_text()
    made = [event for event in ran.events if event["event"] == "workspace_copied"]
    assert [event["step"].endswith(".change") for event in made] == [True, True]
    nothing_left(control_of, ran.record)
