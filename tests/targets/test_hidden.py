"""Files that agents take for instructions never reach a container with a read-only workspace."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec.structs
import pytest

from pccpipe import limits
from pccpipe.docker_api.hidden import NAMES, PATHS
from pccpipe.docker_api.hidden import script as hidden_script
from pccpipe.docker_api.isolation import MOST_HIDDEN
from pccpipe.errors import ActionError
from pccpipe.ssh.connection import Connection
from pccpipe.target import ContainerSettings, Isolation
from tests.cli.command import Folder
from tests.targets.stand import Stand, read_all
from tests.targets.test_container import stand_on
from tests.testbed.vm import VM

READ_ONLY = ContainerSettings("bb:latest", network="none", read_only_workspace=True)
# Every readable byte below the workspace, by any path, with links followed.
READ = "find -L . -type f -exec cat {} + 2>/dev/null; find -L . -exec cat {} + 2>/dev/null | grep -c OBEY"


@pytest.fixture
def stand(vm: VM) -> Iterator[Stand]:
    connections: list[Connection] = []
    made = stand_on(vm, connections, READ_ONLY)
    made.target.open()
    yield made
    made.target.close()
    vm.sh(f"chmod -R u+rwx {made.workspace}; rm -rf {made.workspace} {made.state}")
    for connection in connections:
        connection.close()


def lay(vm: VM, stand: Stand, script: str) -> None:
    """Run a script in the workspace as its owner, as a builder does."""
    vm.ssh(f"cd {shlex.quote(stand.workspace)} && {script}")


def seen(stand: Stand, script: str = READ) -> tuple[str, Isolation]:
    running = stand.start(script)
    stdout, stderr, _ = read_all(running)
    running.discard()
    return stdout.decode("utf-8", "replace") + stderr.decode("utf-8", "replace"), running.isolation


def test_no_such_file_in_any_folder_is_readable_and_the_record_names_each(vm: VM, stand: Stand) -> None:
    names = [*(name.replace("*", "x") for name in NAMES), *PATHS]
    made = ["mkdir -p 'a b/c' && echo code >a.py"]
    for folder in (".", "a b/c"):
        for index, name in enumerate(names):
            inside = f"'{folder}/{name}'" if index % 2 else f"'{folder}/{name}'/deep/f"
            made.append(f'mkdir -p "$(dirname {inside})" && echo OBEY >{inside}')
    lay(vm, stand, " && ".join(made))
    said, had = seen(stand)
    assert "code" in said
    assert "OBEY" not in said
    assert had.hidden == tuple(sorted([*names, *(f"a b/c/{name}" for name in names)]))
    assert not [mount for mount in had.mounts if ":/workspace/" in mount]


def test_an_agents_own_names_are_hidden_where_it_may_write_and_nobody_loses_them(vm: VM, stand: Stand) -> None:
    lay(vm, stand, "mkdir -p .opencode/plugin sub && echo OBEY >.opencode/plugin/x.js && echo code >AGENTS.md")
    writable = msgspec.structs.replace(READ_ONLY, read_only_workspace=False)
    attack = "rm -rf .opencode; echo mine >.opencode/plugin/x.js"
    attack += "; mkdir sub/.opencode; echo OBEY >sub/.opencode/x; mv sub there"
    running = stand.start(f"{READ}; {attack}", container=writable, hides=(".opencode",))
    stdout, _, _ = read_all(running)
    running.discard()
    assert b"OBEY" not in stdout
    assert b"code" in stdout
    assert running.isolation.hidden == (".opencode",)
    assert (
        vm.ssh(f"cd {shlex.quote(stand.workspace)} && cat .opencode/plugin/x.js there/.opencode/x").stdout
        == "OBEY\nOBEY\n"
    )
    again = stand.start(READ, container=writable, hides=(".opencode",))
    stdout, _, _ = read_all(again)
    again.discard()
    assert b"OBEY" not in stdout
    assert again.isolation.hidden == (".opencode", "there/.opencode")


def test_letter_case_does_not_matter(vm: VM, stand: Stand) -> None:
    lay(vm, stand, "echo OBEY >Agents.MD; mkdir .Claude; echo OBEY >.Claude/CLAUDE.md; echo OBEY >geMINI.md")
    said, had = seen(stand)
    assert "OBEY" not in said
    assert had.hidden == (".Claude", "Agents.MD", "geMINI.md")


@pytest.mark.parametrize(
    "folder", ["new\nline", "quo'te\"", "co:lon,comma", "$(touch x)", "-rf", " sp ", "ümlaut", "back\\slash"]
)
def test_such_files_are_hidden_in_folders_of_any_name(vm: VM, stand: Stand, folder: str) -> None:
    at = shlex.quote(f"./{folder}")
    lay(vm, stand, f"mkdir -- {at} && echo OBEY >{at}/AGENTS.md && echo code >{at}/code")
    said, had = seen(stand)
    assert "code" in said
    assert "OBEY" not in said
    assert had.hidden == (f"{folder}/AGENTS.md",)


def test_a_link_to_a_hidden_file_is_harmless_and_the_target_of_another_is_hidden(vm: VM, stand: Stand) -> None:
    lay(vm, stand, "echo OBEY >AGENTS.md; ln -s AGENTS.md CLAUDE.md; mkdir docs .claude; echo OBEY >docs/ai.md")
    lay(vm, stand, "ln -s ../docs/ai.md docs/GEMINI.md; ln -s .claude .codex; echo OBEY >.claude/x")
    said, had = seen(stand)
    assert "OBEY" not in said
    assert had.hidden == (".claude", "AGENTS.md", "docs/ai.md")


def test_a_link_to_a_name_that_ends_in_a_newline_hides_that_file(vm: VM, stand: Stand) -> None:
    lay(vm, stand, "echo plain >evil; echo OBEY >'evil\n'; ln -s 'evil\n' AGENTS.md")
    said, had = seen(stand)
    assert "OBEY" not in said
    assert "plain" in said
    assert had.hidden == ("evil\n",)


@pytest.mark.parametrize(
    "made",
    [
        "ln -s /pcc/in/patch AGENTS.md",
        "ln -s . .claude",
        "mkdir -p gh/agents; ln -s gh .github",
        "mkdir src; ln -s src .codex",
        "ln -s /etc/hostname AGENTS.md",
        "ln -s nowhere AGENTS.md",
        "ln -s AGENTS.md AGENTS.md",
        "ln -s /pcc in; ln -s in/in/patch CLAUDE.md",
        "ln -s ../../../../../etc/passwd GEMINI.md",
    ],
)
def test_a_link_that_leads_elsewhere_fails_the_step_without_a_fallback(vm: VM, stand: Stand, made: str) -> None:
    lay(vm, stand, made)
    with pytest.raises(ActionError, match=r"is a link to (no file of the workspace|a folder)"):
        stand.start("true", files={"patch": b"OBEY"})


def test_a_folder_that_cannot_be_searched_fails_the_step(vm: VM, stand: Stand) -> None:
    lay(vm, stand, "mkdir dark && echo OBEY >dark/AGENTS.md && chmod 111 dark")
    with pytest.raises(ActionError, match=r"cannot find all files.*dark.*Permission denied"):
        stand.start("true")
    lay(vm, stand, "chmod 755 dark && rm -r dark && echo OBEY >AGENTS.md && chmod 111 .")
    with pytest.raises(ActionError, match=r"cannot find all files.*Permission denied"):
        stand.start("true")


def test_a_path_that_is_not_utf8_fails_the_step(vm: VM, stand: Stand) -> None:
    lay(vm, stand, r"d=$(printf 'x\377') && mkdir $d && echo OBEY >$d/AGENTS.md")
    with pytest.raises(ActionError, match=r"xff/AGENTS.md' cannot be hidden"):
        stand.start("true")


def test_a_path_that_is_too_long_to_mount_on_fails_the_step(vm: VM, stand: Stand) -> None:
    lay(vm, stand, "d=$(printf %0200d 0); for i in $(seq 30); do mkdir $d && cd $d; done; echo OBEY >AGENTS.md")
    with pytest.raises(ActionError, match=r"cannot be hidden: its path has \d+ bytes"):
        stand.start("true")
    vm.sh(f"rm -rf {stand.workspace}; mkdir {stand.workspace}; chown {vm.user} {stand.workspace}")
    lay(vm, stand, "d=$(printf %0200d 0); for i in $(seq 17); do mkdir $d && cd $d; done; echo OBEY >AGENTS.md")
    said, had = seen(stand)
    assert "OBEY" not in said
    assert len(had.hidden) == 1


def test_the_limits_number_of_files_is_hidden_in_time_and_more_fail_the_step(vm: VM, stand: Stand) -> None:
    lay(vm, stand, f"for i in $(seq {limits.HIDDEN_FILES.most}); do mkdir d$i; echo OBEY >d$i/AGENTS.md; done")
    began = time.monotonic()
    said, had = seen(stand)
    assert time.monotonic() - began < 20
    assert "OBEY" not in said
    assert (len(had.hidden), had.hidden[-1]) == (MOST_HIDDEN + 1, f"{limits.HIDDEN_FILES.most - MOST_HIDDEN} more")
    lay(vm, stand, "mkdir more; echo OBEY >more/AGENTS.md")
    with pytest.raises(ActionError, match=f"over {limits.HIDDEN_FILES.most} files"):
        stand.start("true")


def test_git_runs_no_program_that_a_repository_in_the_workspace_names(vm: VM, stand: Stand) -> None:
    """A `.git/config`, or a folder that is a bare repository by its shape, names a program for `git status`."""
    lay(vm, stand, "git init -q . && git config core.fsmonitor 'touch /tmp/ran; echo RAN >&2; false' && echo x >f")
    lay(vm, stand, "mkdir bare && cd bare && git init -q --bare . && git config core.bare false")
    lay(vm, stand, "cd bare && git config core.worktree .. && git config core.fsmonitor 'touch /tmp/ran; false'")
    runner = msgspec.structs.replace(READ_ONLY, image="pcc-runner:latest")
    running = stand.start("git status; cd bare; git status; ls /tmp/ran", container=runner)
    stdout, stderr, _ = read_all(running)
    running.discard()
    assert b"not a git repository" in stderr
    assert b"/tmp/ran" not in stdout
    assert b"RAN" not in stderr
    assert ".git" in running.isolation.hidden


def test_a_container_with_a_writable_workspace_sees_them(vm: VM, stand: Stand) -> None:
    lay(vm, stand, "echo OBEY >AGENTS.md")
    running = stand.start("cat AGENTS.md", container=msgspec.structs.replace(READ_ONLY, read_only_workspace=False))
    stdout, _, _ = read_all(running)
    running.discard()
    assert stdout == b"OBEY\n"
    assert running.isolation.hidden == ()


def test_a_command_whose_start_was_cut_off_can_start_again(vm: VM, stand: Stand) -> None:
    lay(vm, stand, "echo OBEY >AGENTS.md")
    command = stand.command("cat AGENTS.md; echo read")
    # As a pccpipe leaves them that was killed before it made the container.
    vm.ssh(hidden_script(stand.workspace, f"{stand.state}/commands/{command.id}.cover"))
    running = stand.target.start(command)
    assert read_all(running)[0] == b"read\n"
    running.discard()


def test_a_folder_that_only_the_account_may_read_is_searched_as_the_account(vm: VM, tmp_path: Path) -> None:
    project = tmp_path / "p.yaml"
    project.write_text(
        f"id: p\nisolation_mode: vm\nvm:\n  external_ip: {vm.host}\n  user: {vm.user}\n  key_path: {vm.key}\n"
        f"  known_hosts: {vm.known_hosts}\n  root: {vm.root}\n  run_as: {vm.run_as}\n"
    )
    pipeline = Folder(tmp_path).pipeline(
        """
        containers:
          box: {image: "bb:latest", network: none}
          reader: {extends: box, workspace: read-only}
        steps:
          - {id: sync, upload: workspace}
          - id: build
            on: container
            container: box
            run: umask 077; mkdir -p a/b; echo OBEY >a/b/AGENTS.md; echo code >a/b/code; chmod 700 a
          - id: review
            on: container
            container: reader
            run: cat a/b/code; find . -type f -exec cat {} +
        """
    )
    (tmp_path / "w").mkdir()
    done = Folder(tmp_path).do("run", pipeline, "--run-id", "r", "--project", project, "--workspace", tmp_path / "w")
    assert done.code == 0, done.stdout
    assert "review | code" in done.stdout
    assert "OBEY" not in done.stdout
