"""The choice of the project file: no stray file makes a container's step run on this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import pccpipe
from pccpipe.outcome import IsolationMode
from pccpipe.spec.project_model import Project
from tests.cli.command import Done, Folder

VM = "id: proj\nisolation_mode: vm\n{}vm: {{external_ip: 127.0.0.1, port: 1, user: deploy, root: {}}}\n"
BOX = "containers: {box: {image: nothing}}\nsteps: [{id: agent, on: container, container: box, run: touch ran-here}]\n"
FAR = "steps: [{id: far, on: vm, run: touch ran-here}]\n"
NEAR = "steps: [{id: near, run: echo near}]\n"
HOSTILE = "id: proj\nisolation_mode: local\n"


def project(path: Path, text: str = "", root: str = "/home/project") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(VM.format(text, root))
    return path


def ran_here(folder: Path) -> bool:
    return any(folder.rglob("ran-here"))


def first_line(done: Done) -> str:
    return done.stdout.splitlines()[0]


def test_the_file_above_is_found_from_a_subfolder_and_named(folder: Folder) -> None:
    file = project(folder.path / "pccpipe.yaml", "isolation: required\n")
    folder.pipeline(FAR)
    inner = folder.path / "services/api"
    inner.mkdir(parents=True)
    done = Folder(inner).do("run", "../../pipeline.yaml", "--run-id", "r", "--no-fallback")
    assert done.code == 3, done
    assert f"project proj ({file}), isolation vm" in first_line(done)
    assert not ran_here(folder.path)
    assert str(file) in Folder(inner).do("show", "r").stdout
    assert json.loads((inner / ".system/runs/r/run.json").read_text())["project_path"] == str(file)


@pytest.mark.parametrize("command", ["plan", "doctor", "gc", "provision"])
def test_every_command_takes_the_same_file_and_names_it(folder: Folder, command: str) -> None:
    file = project(folder.path / "pccpipe.yaml")
    inner = folder.path / "services/api"
    inner.mkdir(parents=True)
    folder.pipeline(FAR)
    done = Folder(inner).do(command, *(["../../pipeline.yaml"] if command == "plan" else []))
    assert "127.0.0.1" in done.stdout + done.stderr
    if command == "gc":
        # Of a VM that is away there is one message; where there is something to say, it begins with the project.
        file.write_text(HOSTILE)
        done = Folder(inner).do(command)
        assert done.stdout.startswith(f"project proj ({file})\n")
    elif command != "provision":
        assert str(file) in done.stdout


def test_the_file_beside_the_pipeline_comes_before_that_of_the_current_folder(folder: Folder) -> None:
    file = project(folder.path / "ops/pccpipe.yaml")
    (folder.path / "ops/p.yaml").write_text(f"version: 1\nname: t\n{BOX}")
    worktree = folder.path / "worktree"
    worktree.mkdir()
    (worktree / "pccpipe.yaml").write_text(HOSTILE)
    done = Folder(worktree).do("run", "../ops/p.yaml", "--run-id", "r")
    assert (done.code, f"({file})" in first_line(done)) == (3, True), done
    assert not ran_here(folder.path)


@pytest.mark.parametrize("how", ["plain", "link-to-workspace", "file-is-a-link-out", "file-is-a-link-in"])
def test_a_worktrees_own_file_does_not_count_for_a_named_workspace(folder: Folder, how: str) -> None:
    worktree = folder.path / "worktree"
    worktree.mkdir()
    (worktree / "pipeline.yaml").write_text(f"version: 1\nname: t\n{BOX}")
    if how == "file-is-a-link-out":
        (folder.path / "elsewhere.yaml").write_text(HOSTILE)
        (worktree / "pccpipe.yaml").symlink_to(folder.path / "elsewhere.yaml")
    else:
        (worktree / "pccpipe.yaml").write_text(HOSTILE)
    if how == "file-is-a-link-in":
        (folder.path / "pccpipe.yaml").symlink_to(worktree / "pccpipe.yaml")
    named = folder.path / "link"
    named.symlink_to(worktree)
    workspace = named if how == "link-to-workspace" else worktree
    arguments = ["run", f"{workspace}/pipeline.yaml", "--run-id", "r", "--workspace", str(workspace)]
    for place in (folder.path, worktree):
        done = Folder(place).do(*arguments)
        assert done.code == 2, done
        assert "the step agent has `on: container`, and no project file" in done.stderr
        assert "it is in the workspace (to use it: --project" in done.stderr
        assert not ran_here(folder.path)
        assert not (place / ".system").exists()
    # With one above that is the operator's, that one counts.
    if how != "file-is-a-link-in":
        file = project(folder.path / "pccpipe.yaml")
        done = folder.do(*arguments)
        assert (done.code, f"({file})" in first_line(done)) == (3, True), done
    # And so does the worktree's, where the operator names it.
    done = folder.do(*arguments[:2], "--run-id", "r2", "--workspace", workspace, "--project", worktree / "pccpipe.yaml")
    assert f"({worktree / 'pccpipe.yaml'})" in first_line(done), done


def test_the_file_counts_for_an_operator_in_the_workspace(folder: Folder) -> None:
    file = project(folder.path / "pccpipe.yaml")
    folder.pipeline(BOX)
    done = folder.do("run", "pipeline.yaml", "--run-id", "r")
    assert (done.code, f"({file})" in first_line(done)) == (3, True), done


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")
def test_another_users_file_above_does_not_count(folder: Folder) -> None:
    inner = folder.path / "mine"
    inner.mkdir()
    (folder.path / "pccpipe.yaml").write_text(HOSTILE)
    os.chown(folder.path / "pccpipe.yaml", 12345, 12345)
    (inner / "p.yaml").write_text(f"version: 1\nname: t\n{BOX}")
    done = Folder(inner).do("run", "p.yaml", "--run-id", "r")
    assert (done.code, "it belongs to another user" in done.stderr) == (2, True), done
    # A folder that is all theirs, as one mounted into a container is.
    os.chown(inner, 12345, 12345)
    assert "another user" not in Folder(inner).do("run", "p.yaml", "--run-id", "r").stderr


def test_a_built_in_pipeline_begins_at_the_current_folder(folder: Folder) -> None:
    (folder.path / "order.md").write_text("order")
    given = ["--input", "work_order=order.md", "--input", "test=true"]
    env = {"OPENAI_API_KEY": "sk-0123456789abcdef"}
    done = folder.do("run", "default-run", "--run-id", "r", *given, env=env)
    assert (done.code, "no project file says" in done.stderr) == (2, True), done
    assert "pccpipe init" in done.stderr
    assert "--local" in done.stderr
    assert not (folder.path / ".system").exists()
    file = project(folder.path / "pccpipe.yaml")
    assert str(file) in folder.do("plan", "default-run", *given, env=env).stdout


@pytest.mark.parametrize("text", [BOX, FAR, f"steps: [{{id: g, parallel: {FAR[7:].strip()}}}]\n"])
def test_without_a_project_file_nothing_runs_here_unless_the_operator_says_so(folder: Folder, text: str) -> None:
    folder.pipeline(text)
    done = folder.do("run", "pipeline.yaml", "--run-id", "r")
    assert done.code == 2, done
    assert "and no project file says" in done.stderr
    assert not ran_here(folder.path)
    assert not (folder.path / ".system").exists()
    assert "warning: `run` refuses this" in folder.do("plan", "pipeline.yaml").stdout
    done = folder.do("run", "pipeline.yaml", "--run-id", "r", "--local")
    assert done.code == 0, done
    assert "isolation local by --local" in first_line(done)
    assert ran_here(folder.path)
    shown = folder.do("show", "r").stdout
    what = "in the container" if text == BOX else "on the VM"
    assert f"ran:       1 on this machine, not {what} it asked for (--local)\n" in shown


def test_local_holds_for_a_resumed_run_and_not_against_a_requirement(folder: Folder) -> None:
    file = project(folder.path / "pccpipe.yaml")
    folder.pipeline(f"{FAR}always: [{{id: last, run: 'test -e go || kill -9 $(cat pid)'}}]\n")
    process = folder.start("run", "pipeline.yaml", "--run-id", "r", "--local")
    (folder.path / "pid").write_text(str(process.pid))
    process.communicate(timeout=60)
    assert process.returncode == -9
    (folder.path / "go").touch()
    done = folder.do("resume", "r")
    assert done.code in {0, 3}, done
    assert json.loads((folder.path / ".system/runs/r/run.json").read_text())["isolation_mode"] == "local"
    # Not where the file forbids it.
    project(file, "isolation: required\n")
    done = folder.do("run", "pipeline.yaml", "--run-id", "r2", "--local")
    assert (done.code, "has `isolation: required`" in done.stderr) == (2, True), done
    file.unlink()
    folder.pipeline("steps: [{id: far, on: vm, isolation: required, run: touch ran-too}]\n")
    for command in (["run", "pipeline.yaml", "--run-id", "r3"], ["plan", "pipeline.yaml"]):
        done = folder.do(*command, "--local")
        assert (done.code, "the step far has `isolation: required`" in done.stderr) == (2, True), done


def test_a_pipeline_that_asks_for_nothing_needs_no_project_file(folder: Folder) -> None:
    folder.pipeline(f"{NEAR[:-2]}, {{id: sync, upload: workspace}}]\n")
    done = folder.do("run", "pipeline.yaml", "--run-id", "r")
    assert (done.code, "(no project file), isolation local" in first_line(done)) == (0, True), done


def interrupted(folder: Folder, *more: str) -> None:
    """Make a run r that was killed in its first step."""
    folder.pipeline("steps: [{id: near, run: 'kill -9 $(cat pid); sleep 1'}]\n")
    process = folder.start("run", "pipeline.yaml", "--run-id", "r", *more)
    (folder.path / "pid").write_text(str(process.pid))
    process.communicate(timeout=60)
    assert process.returncode == -9


@pytest.mark.parametrize(
    ("text", "differs"),
    [
        (VM.format("", "/home/project").replace("id: proj", "id: other"), "its id is other, not proj"),
        (HOSTILE, "its isolation_mode is local, not vm"),
        (VM.format("", "/home/another"), "its `vm:` differs"),
        (VM.format("", "/home/project").replace("127.0.0.1", "127.0.0.2"), "its `vm:` differs"),
        (VM.format("", "/home/project").replace("port: 1", "port: 2"), "its `vm:` differs"),
        (VM.format("", "/home/project").replace("deploy", "root"), "its `vm:` differs"),
        (VM.format("", "/home/project").replace("user:", "run_as: pccrun, user:"), "its `vm:` differs"),
    ],
)
def test_a_run_goes_on_with_no_other_project(folder: Folder, text: str, differs: str) -> None:
    file = project(folder.path / "pccpipe.yaml")
    interrupted(folder)
    (folder.path / "other.yaml").write_text(text)
    commands = (["resume", "r"], ["answer", "r", "key=value"], ["cancel", "r"])
    for command in commands:
        done = folder.do(*command, "--project", "other.yaml")
        assert done.code == 2, done
        assert differs in done.stderr
    # The same file, changed since.
    file.write_text(text)
    for command in commands:
        done = folder.do(*command)
        assert (done.code, differs in done.stderr) == (2, True), done


def test_a_requirement_that_is_gone_from_the_file_still_holds(folder: Folder) -> None:
    file = project(folder.path / "pccpipe.yaml", "isolation: required\nlost_after: 1s\n")
    folder.pipeline(
        "steps: [{id: near, run: 'test -e go || kill -9 $(cat pid); sleep 1'}, "
        "{id: far, on: vm, run: touch ran-here, fallback: {on: local}}]\n"
    )
    process = folder.start("run", "pipeline.yaml", "--run-id", "r")
    (folder.path / "pid").write_text(str(process.pid))
    process.communicate(timeout=60)
    (folder.path / "go").touch()
    project(file, "lost_after: 1s\n")
    done = folder.do("resume", "r")
    assert done.code == 3, done
    assert not ran_here(folder.path)


def test_a_record_of_an_earlier_version_goes_on_with_its_project_alone(folder: Folder) -> None:
    file = project(folder.path / "pccpipe.yaml")
    interrupted(folder)
    journal = folder.path / ".system/runs/r/events.jsonl"
    first, *rest = journal.read_text().splitlines(keepends=True)
    began = {name: value for name, value in json.loads(first).items() if name != "project_identity"}
    del began["isolation_required"], began["local"]
    journal.write_text(json.dumps(began) + "\n" + "".join(rest))
    other = project(folder.path / "other/pccpipe.yaml")
    done = folder.do("resume", "r", "--project", other)
    assert (done.code, f"it is {other}, not {file}" in done.stderr) == (2, True), done
    (folder.path / "local.yaml").write_text(HOSTILE)
    assert folder.do("resume", "r", "--project", "local.yaml").code == 2
    assert folder.do("resume", "r").code != 2


def test_what_the_project_leads_here_is_not_said_to_have_had_what_it_asked_for(folder: Folder) -> None:
    (folder.path / "pccpipe.yaml").write_text("id: p\nisolation_mode: local\n")
    folder.pipeline(f"{BOX[:-2]}, {{id: near, run: 'true'}}]\n")
    assert folder.do("run", "pipeline.yaml", "--run-id", "r").code == 0
    shown = folder.do("show", "r").stdout
    led = "1 on this machine, not in the container it asked for (isolation_mode: local)"
    assert f"ran:       {led}, 1 on this machine in no container\n" in shown, shown


def test_the_library_never_searches(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.path)
    (folder.path / "pccpipe.yaml").write_text(HOSTILE)
    far = pccpipe.load(folder.pipeline(FAR))
    with pytest.raises(pccpipe.UsageError, match="and no project file says"):
        pccpipe.run(far, run_id="r")
    assert not (folder.path / ".system").exists()
    assert any("`run` refuses this" in warning for warning in pccpipe.plan(far).warnings)
    assert pccpipe.run(far, run_id="r1", project=pccpipe.local_project()).exit_status == 0
    explicit = Project("p", IsolationMode.LOCAL)
    assert pccpipe.run(far, run_id="r2", project=explicit).exit_status == 0
    near = pccpipe.load(folder.pipeline(NEAR, "near.yaml"))
    project(folder.path / "pccpipe.yaml")
    ran = pccpipe.run(near, run_id="r3")
    assert (ran.exit_status, ran.state.project_path) == (0, None)
    assert pccpipe.load_project().isolation_mode is IsolationMode.VM
    (folder.path / "pccpipe.yaml").unlink()
    with pytest.raises(pccpipe.UsageError, match=r"no file pccpipe\.yaml"):
        pccpipe.load_project()
