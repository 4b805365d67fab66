"""Run the whole pipelines/default-run.yaml: a real VM, real containers, the real Codex CLI, a scripted model."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.control import DEMO, ROOT, Control, Ran, containers
from tests.testbed.model import ModelServer
from tests.testbed.vm import VM

KEY = "sk-test-4be1d7of-this-run-alone"
"""A value that no other test has, because the watcher also sees processes of parallel tests."""


class Watcher(threading.Thread):
    """Record, while a run goes on, all that a user on the host or the VM can see of it."""

    def __init__(self, vm: VM, *, on_host: bool = True) -> None:
        super().__init__(daemon=True)
        self.vm = vm
        self.over = threading.Event()
        self.on_vm: set[str] = set()
        self.on_host: set[str] = set()
        self.inspected: dict[str, dict[str, Any]] = {}
        self.look_at_host = on_host

    def run(self) -> None:
        while not self.over.is_set():
            self.on_vm |= set(self.vm.sh("ps -eo pid,user,args ww", check=False).stdout.splitlines())
            if self.look_at_host:
                seen = subprocess.run(["ps", "-eo", "pid,pidns,args", "ww"], capture_output=True, text=True, check=True)
                mine = Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
                self.on_host |= {line for line in seen.stdout.splitlines() if line.split()[1] == mine}
            ids = self.vm.sh("docker ps -aq --filter label=pccpipe.run", check=False).stdout.split()
            if ids:
                text = self.vm.sh(f"docker inspect {' '.join(ids)}", check=False).stdout or "[]"
                try:
                    self.inspected.update({one["Name"].lstrip("/"): one for one in json.loads(text)})
                except ValueError:
                    continue

    def __enter__(self) -> Watcher:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join(timeout=10)


def default_run(control: Control, model: ModelServer, *arguments: str, limit: float = 90) -> Ran:
    shutil.copytree(DEMO / "project", control.workspace, dirs_exist_ok=True)
    return control.run(
        ROOT / "pipelines/default-run.yaml",
        *("--input", f"work_order={DEMO / 'work-order.md'}", "--input", "test=sh test.sh"),
        *("--input", f"endpoint={model.url}/v1", *arguments),
        limit=limit,
    )


@pytest.fixture(scope="module", params=[False, True], ids=["login", "run_as"])
def seen(
    request: pytest.FixtureRequest, vm: VM, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Ran, Watcher, ModelServer, Control]:
    """One run that all tests here read; and one whose workspace code has an account."""
    control = Control(tmp_path_factory.mktemp("default"), vm, {"OPENAI_API_KEY": KEY}, run_as=request.param)
    model = ModelServer(vm.host_side, key=KEY, scenario=json.loads((DEMO / "scenario.json").read_text()))
    with model, Watcher(vm) as watcher:
        ran = default_run(control, model)
    assert ran.code == 0, ran.stdout + ran.stderr
    return ran, watcher, model, control


Seen = tuple[Ran, Watcher, ModelServer, Control]


def test_the_rounds_are_a_broken_build_a_requested_change_and_an_approval(seen: Seen) -> None:
    ran, *_ = seen
    outcomes = {step["path"]: step["outcome"] for step in ran.state["steps"]}
    assert ran.state["outcome"] == "succeeded"
    assert not ran.state["downgraded"]
    assert outcomes["iterate[1].test"] == "failed"
    assert outcomes["iterate[1].review"] == "skipped"
    assert outcomes["iterate[2].test"] == "succeeded"
    assert ran.step("iterate[2].review")["result"]["status"] == "changes_requested"
    assert ran.step("iterate[3].review")["result"]["status"] == "approved"
    assert "iterate[4].build" not in outcomes


def test_builder_and_reviewer_ran_in_containers_on_the_vm_and_not_on_the_host(seen: Seen) -> None:
    ran, watcher, _, control = seen
    agents = [step for step in ran.state["steps"] if step["path"].split(".")[-1] in {"build", "review"}]
    began = [step for step in agents if step["outcome"] != "skipped"]
    assert len(began) == 5
    assert control.vm is not None
    for step in began:
        had = step["attempts"][-1]["had"]
        assert (had["place"], had["host"]) == ("container", control.vm.host)
        assert had["image_digest"].startswith("sha256:")
    assert any("codex" in line and "exec" in line for line in watcher.on_vm)
    assert not [line for line in watcher.on_host if "codex" in line and "exec --json" in line]


def test_each_agent_step_had_a_fresh_container(seen: Seen) -> None:
    ran, *_ = seen
    names = [
        attempt["had"]["container"]
        for step in ran.state["steps"]
        for attempt in step["attempts"]
        if attempt["had"]["place"] == "container"
    ]
    assert len(set(names)) == len(names) == 5
    assert all(name.startswith("pcc-run-") for name in names)


def test_the_key_is_used_and_appears_in_no_argument_list_or_inspect(seen: Seen) -> None:
    _, watcher, model, _ = seen
    assert {request.authorization for request in model.requests if request.body} == {f"Bearer {KEY}"}
    assert watcher.inspected
    assert KEY not in json.dumps(watcher.inspected)
    assert not [line for line in watcher.on_vm | watcher.on_host if KEY in line]


def test_the_key_is_nowhere_in_the_record(seen: Seen) -> None:
    ran, *_ = seen
    files = [path for path in ran.record.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert KEY not in ran.stdout + ran.stderr


def test_the_workspace_of_the_vm_is_mounted_and_read_only_for_the_reviewer(seen: Seen) -> None:
    ran, watcher, _, control = seen
    workspace = f"/home/project/.system/run-workspaces/{ran.record.name}" + "/workspace" * control.run_as
    for name, container in watcher.inspected.items():
        mounts = {mount["Destination"]: mount for mount in container["Mounts"]}
        assert mounts["/workspace"]["Source"] == workspace
        assert mounts["/workspace"]["RW"] is ("-build-" in name)
        assert mounts["/pcc/in"]["RW"] is False
        host_config = container["HostConfig"]
        assert host_config["CapDrop"] == ["ALL"]
        assert "no-new-privileges" in " ".join(host_config["SecurityOpt"])
        assert (host_config["Memory"], host_config["PidsLimit"], host_config["Init"]) == (4 << 30, 1000, True)
        assert container["Config"]["User"].split(":")[0] not in {"", "0", "root"}


def test_results_logs_diff_and_artifacts_are_in_the_record(seen: Seen) -> None:
    ran, *_ = seen
    for folder in ("builder/iter-1", "builder/iter-3", "reviewer/iter-2", "reviewer/iter-3"):
        assert json.loads((ran.record / folder / "result.json").read_text())
        assert "thread.started" in (ran.record / folder / "stdout.log").read_text()
        assert (ran.record / folder / "stderr.log").exists()
    assert "+`sh slug.sh --max 5" in (ran.record / "diff.patch").read_text()
    assert "0 failed" in (ran.record / "artifacts/test-results/report.txt").read_text()
    assert (ran.record / "pipeline.yaml").read_text() == (ROOT / "pipelines/default-run.yaml").read_text()


def test_the_views_show_codex_at_work_and_the_end_says_what_the_run_did(seen: Seen) -> None:
    text = seen[0].stdout
    assert '{"type"' not in text
    assert "iterate[2].review | $ cat README.md" in text
    assert "iterate[2].review |   exit 0 in " in text
    end = text.partition("\nchanges: ")[2]
    assert end.startswith("2 files, +9 -2 lines, in diff.patch\n  +7 -2 slug.sh\n  +2 -0 README.md\nbuild")
    for said in (
        ": Document --max in the README.\n",
        "\nreview: approved in round 3",
        "\n  before (round 2): changes requested: ",
        "\nbuild by codex in 3 rounds: ",
        "\ntests: test succeeded in ",
        "; failed in 1 round before\nmodel: 10 calls, ",
        f"\nnext: git -C {seen[3].workspace} apply {seen[0].record}/diff.patch\n",
    ):
        assert said in end


def test_the_diff_applies_to_the_uploaded_workspace(seen: Seen, tmp_path: Path) -> None:
    ran, *_ = seen
    shutil.copytree(DEMO / "project", tmp_path / "p")
    subprocess.run(["git", "apply", str(ran.record / "diff.patch")], cwd=tmp_path / "p", check=True)
    subprocess.run(["sh", "test.sh"], cwd=tmp_path / "p", check=True, capture_output=True)
    assert not [line for line in (ran.record / "diff.patch").read_text().splitlines() if "test-results" in line]


def test_the_tests_ran_on_the_vm_and_in_no_container(seen: Seen) -> None:
    ran, _, _, control = seen
    assert control.vm is not None
    for path in ("baseline", "iterate[1].test", "iterate[2].test"):
        had = ran.step(path)["attempts"][-1]["had"]
        assert (had["place"], had["host"], had["container"]) == ("vm", control.vm.host, None)


def test_with_run_as_all_code_ran_as_the_account_and_no_result_is_unattested(seen: Seen) -> None:
    ran, _, _, control = seen
    assert control.vm is not None
    uid = control.vm.sh(f"id -u {control.vm.run_as if control.run_as else control.vm.user}").stdout.strip()
    had = [attempt["had"] for step in ran.state["steps"] for attempt in step["attempts"]]
    assert {one["user"].split(":")[0] for one in had} == {uid}
    assert {one["engine_at_hand"] for one in had if one["place"] == "vm"} == {not control.run_as}
    assert any(step.get("unattested") for step in ran.state["steps"]) is not control.run_as


def test_the_next_builder_gets_the_failure_and_the_reviewers_request(seen: Seen) -> None:
    _, _, model, _ = seen
    prompts = [json.dumps(request.body) for request in model.requests if request.body]
    assert any("The tests failed after the last change" in prompt and "FAILED  Hello" in prompt for prompt in prompts)
    assert any("add an example of it" in prompt and "You are the builder" in prompt for prompt in prompts)


def test_nothing_of_the_run_is_left_on_the_vm(seen: Seen) -> None:
    ran, _, _, control = seen
    assert control.vm is not None
    assert not [name for name in containers(control.vm) if ran.record.name[:8] in name]
    left = control.vm.sh(f"find /home/project/.system /tmp -name '*{ran.record.name}*'", check=False).stdout
    assert left == ""
    assert not control.vm.pids(ran.record.name)


def test_a_baseline_that_fails_twice_ends_the_run_before_any_agent(control: Control, model: ModelServer) -> None:
    (control.workspace / "test.sh").write_text("echo broken before; exit 1\n")
    ran = control.run(
        ROOT / "pipelines/default-run.yaml",
        *("--input", f"work_order={DEMO / 'work-order.md'}", "--input", "test=sh test.sh"),
        *("--input", f"endpoint={model.url}/v1"),
    )
    assert ran.code == 1
    assert (ran.state["outcome"], ran.state["status"]) == ("failed", "baseline_failed")
    assert len(ran.step("baseline")["attempts"]) == 2
    assert not [step for step in ran.state["steps"] if step["path"].startswith("iterate")]
    assert not model.requests
    assert "broken before" in ran.stdout
