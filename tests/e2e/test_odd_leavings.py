"""An odd file that a step leaves is refused alone: all other changes are fetched, and the VM is cleaned up."""

from __future__ import annotations

import subprocess
import textwrap
from pathlib import Path

import pytest

from tests.e2e.control import Control, Ran, containers, happened, wait_until

pytestmark = pytest.mark.also_on_a_mac

PIPELINE = """
    containers: {{box: {{image: "bb:latest", network: none{settings}}}}}
    steps:
      - {{id: up, upload: workspace}}
      - id: agent
        {on}
        run: |
{script}
      - {{id: changes, diff: diff.patch}}
    always:
      - {{id: clean, remove: workspace}}
"""
WORK = "echo fixed >> app.txt"


def agent(control: Control, script: str, *, on: str = "on: vm", settings: str = "") -> Ran:
    """Run a pipeline whose step runs a script, as an agent might."""
    (control.workspace / "app.txt").write_text("broken\n")
    (control.workspace / "src").mkdir(exist_ok=True)
    (control.workspace / "src" / "main.c").write_text("int main;\n")
    indented = textwrap.indent(textwrap.dedent(script), " " * 10)
    return control.run(PIPELINE.format(on=on, script=indented, settings=settings))


def patch(ran: Ran) -> str:
    return (ran.record / "diff.patch").read_text()


def left(control: Control, ran: Ran) -> str:
    """Return the files that the run left on the VM."""
    assert control.vm
    folders = "run-workspaces run-state run-io"
    there = f"cd {control.vm.root}/.system && find {folders} -path '*{ran.record.name}*' 2>/dev/null || true"
    return control.vm.sh(there).stdout


def outcome(ran: Ran, step: str) -> str:
    found: str = ran.step(step)["outcome"]
    return found


ON = {"vm": "on: vm", "container": "on: container\n        container: box"}


@pytest.fixture(params=["login", "account"])
def project(request: pytest.FixtureRequest, control: Control) -> Control:
    """A project whose code runs as the login, and one whose code has an account."""
    control.run_as = request.param == "account"
    return control


@pytest.mark.parametrize("on", ON)
def test_a_locked_folder_and_a_locked_file_are_fetched(project: Control, on: str) -> None:
    script = f"""\
        mkdir -p locked/deeper; echo x > locked/deeper/f; chmod 000 locked/deeper locked
        echo y > secretive; chmod 000 secretive src/main.c
        {WORK}"""
    ran = agent(project, script, on=ON[on])
    assert ran.code == 0, ran.stdout
    assert "+fixed\n" in patch(ran)
    assert "b/locked/deeper/f" in patch(ran)
    assert "b/secretive" in patch(ran)
    assert "main.c" not in patch(ran)
    assert left(project, ran) == ""


@pytest.mark.parametrize("on", ON)
def test_read_only_folders_are_removed(project: Control, on: str) -> None:
    script = f"mkdir -p mod/a/b; echo x > mod/a/b/f.go; chmod 444 mod/a/b/f.go; chmod 555 mod/a/b mod/a mod; {WORK}"
    ran = agent(project, script, on=ON[on])
    assert ran.code == 0, ran.stdout
    assert left(project, ran) == ""


def test_files_of_a_containers_root_are_fetched_and_removed(project: Control) -> None:
    script = f"mkdir -p cache/a; echo x > cache/a/f; chmod 700 cache/a cache; chown -R 0:0 src; chmod 700 src; {WORK}"
    ran = agent(project, script, on=ON["container"], settings=", user: root, capabilities: [CHOWN]")
    assert ran.code == 0, ran.stdout
    assert "+fixed\n" in patch(ran)
    assert "b/cache/a/f" in patch(ran)
    assert "main.c" not in patch(ran)
    assert "refused" not in ran.step("changes")["facts"]
    assert left(project, ran) == ""
    assert project.vm
    assert containers(project.vm, ran.record.name) == []


def test_an_unreadable_file_is_refused_alone(project: Control) -> None:
    """The files of root, from a container or an administrator, stay as they were and are named."""
    assert project.vm
    script = f"""\
        mkdir cache; echo x > cache/f; {WORK}
        while [ ! -e taken ]; do sleep 0.1; done; rm taken"""
    folder = f"{project.vm.root}/.system/run-workspaces"

    def take(_: object, record: Path) -> None:
        deeper = f"{folder}/{record.name}" + ("/workspace" if project.run_as else "")
        assert project.vm
        wait = f"until [ -e {deeper}/cache/f ]; do sleep 0.1; done"
        project.vm.sh(f"{wait}; cd {deeper}; chmod 700 src cache; chown -R 0:0 src cache; touch taken; chmod 666 taken")

    (project.workspace / "app.txt").write_text("broken\n")
    (project.workspace / "src").mkdir()
    (project.workspace / "src" / "main.c").write_text("int main;\n")
    indented = textwrap.indent(textwrap.dedent(script), " " * 10)
    ran = project.run(PIPELINE.format(on="on: vm", script=indented, settings=""), meanwhile=take)
    assert "+fixed\n" in patch(ran)
    assert "main.c" not in patch(ran)
    refused = "\n".join(ran.step("changes")["facts"]["refused"])
    assert "'cache': unreadable there: it belongs to another user, with mode 700" in refused
    assert "'src': unreadable there" in refused
    # Files that only root can remove are named, with the fix.
    clean = ran.step("clean")
    assert clean["outcome"] == "failed"
    assert f"remove it as root on the VM: rm -rf {folder}/{ran.record.name}" in clean["message"]
    project.vm.sh(f"rm -rf {folder}/{ran.record.name}")


def test_a_missing_workspace_needs_no_removal(control: Control) -> None:
    ran = agent(control, 'cd ..; rm -rf "$PCC_WORKSPACE"')
    assert outcome(ran, "changes") == "failed"
    assert "is gone: a step removed or moved it" in ran.step("changes")["message"]
    assert outcome(ran, "clean") == "succeeded"
    assert left(control, ran) == ""


def test_nothing_is_fetched_through_a_link_that_replaced_the_workspace(control: Control) -> None:
    assert control.vm
    control.vm.sh("mkdir -p /home/pcc/precious; echo private > /home/pcc/precious/notes.txt; chown -R pcc: /home/pcc")
    ran = agent(control, 'cd ..; rm -rf "$PCC_WORKSPACE"; ln -s /home/pcc/precious "$PCC_WORKSPACE"')
    assert outcome(ran, "changes") == "failed"
    assert "is a symbolic link now" in ran.step("changes")["message"]
    assert not (ran.record / "diff.patch").exists()
    assert not [path for path in ran.record.rglob("notes.txt") if "workspace" in path.parts]
    assert outcome(ran, "clean") == "succeeded"
    assert "is a symbolic link now" in ran.step("clean")["facts"]["refused"][0]
    assert left(control, ran) == ""
    assert control.vm.sh("cat /home/pcc/precious/notes.txt; rm -r /home/pcc/precious").stdout == "private\n"


@pytest.mark.parametrize("leaves", ["ln -s precious", "true"])
def test_a_local_copy_that_is_missing_or_a_link_is_refused(local_control: Control, leaves: str) -> None:
    precious = local_control.folder / "precious"
    precious.mkdir()
    (precious / "notes.txt").write_text("private\n")
    leaves = leaves.replace("precious", str(precious))
    ran = agent(local_control, f'cd ..; rm -rf "$PCC_WORKSPACE"; {leaves} "$PCC_WORKSPACE"', on="on: local")
    assert outcome(ran, "changes") == "failed"
    words = "is a symbolic link now" if "ln" in leaves else "is gone: a step removed or moved it"
    assert words in ran.step("changes")["message"]
    assert not (ran.record / "diff.patch").exists()
    assert (precious / "notes.txt").read_text() == "private\n"
    assert not (ran.record / "workspace").exists()


GONE = {
    "link": ('cd ..; rm -rf "$PCC_WORKSPACE"; ln -s /home/pcc/precious "$PCC_WORKSPACE"', "is a symbolic link now"),
    "gone": ('cd ..; rm -rf "$PCC_WORKSPACE"', "is gone: a step removed or moved it"),
}


@pytest.mark.parametrize("on", ["vm", "container, container: box"])
@pytest.mark.parametrize("how", GONE)
def test_no_step_runs_where_the_workspace_was_replaced_or_removed(control: Control, how: str, on: str) -> None:
    """Neither the target of a link nor an empty folder counts as the code."""
    assert control.vm
    script, words = GONE[how]
    control.vm.ssh("mkdir -p /home/pcc/precious; echo private > /home/pcc/precious/notes.txt")
    pipeline = f"""
        containers: {{box: {{image: "bb:latest", network: none}}}}
        steps:
          - {{id: up, upload: workspace}}
          - {{id: earlier, on: {on}, run: 'true'}}
          - {{id: breaks, on: vm, run: '{script}'}}
          - {{id: unit, on: {on}, fallback: {{on: local}}, run: echo wrong > wrong.txt}}
        always:
          - {{id: clean, remove: workspace}}
    """
    ran = control.run(pipeline)
    assert ran.code == 1, ran.stdout
    assert outcome(ran, "unit") == "failed"
    assert words in ran.step("unit")["message"]
    assert "$PCC_WORKSPACE, not the folder itself" in ran.step("unit")["message"]
    assert left(control, ran) == ""
    kept = control.vm.sh("cd /home/pcc/precious; ls; cat notes.txt; rm -r /home/pcc/precious").stdout
    assert kept == "notes.txt\nprivate\n"


def test_a_resumed_run_does_not_replace_a_missing_workspace(control: Control) -> None:
    vm = control.vm
    assert vm
    pipeline = """
        steps:
          - {id: up, upload: workspace}
          - {id: waits, on: vm, run: "echo begun; until [ -e ../../go ]; do sleep 0.1; done"}
          - {id: unit, on: vm, run: ls}
        always:
          - {id: clean, remove: workspace}
    """

    def kill(process: subprocess.Popen[str], record: Path) -> None:
        wait_until(lambda: happened(record, "command_started"))
        process.kill()

    ran = control.run(pipeline, meanwhile=kill)
    name = ran.record.name
    vm.ssh(f"cd {vm.root}/.system && rm -rf run-workspaces/{name} && touch go")
    resumed = control.do("resume", name)
    vm.sh(f"rm {vm.root}/.system/go")
    assert resumed.returncode == 1, resumed.stdout
    assert outcome(ran, "waits") == "succeeded"
    assert outcome(ran, "unit") == "failed"
    assert "is gone: a step removed or moved it" in ran.step("unit")["message"]
    assert left(control, ran) == ""


def test_a_run_that_uploads_nothing_gets_an_empty_workspace(control: Control) -> None:
    pipeline = """
        containers: {box: {image: "bb:latest", network: none}}
        steps:
          - {id: boxed, on: container, container: box, run: "ls; echo made > made.txt"}
          - {id: there, on: vm, run: cat made.txt}
    """
    ran = control.run(pipeline)
    assert ran.code == 0, ran.stdout
    assert ran.log("boxed") == ""
    assert ran.log("there") == "made\n"
