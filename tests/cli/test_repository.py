"""The user's own repository, around a run's folders and around its workspace: no step's git reaches it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.command import Done, Folder, wait_until

HARM = (
    *("reset -q --hard", "checkout -f -- .", "stash", "stash -u", "stash --all", "add -A", "rm -rqf --cached tracked"),
    *("commit -qam x", "clean -fdq", "clean -fdxq", "clean -ffdxq", "branch harm", "tag harm", "gc -q", "init -q"),
    *("config core.bare true", "worktree add -f ../harm", "submodule add ./x x", "update-ref refs/heads/harm HEAD"),
    *("remote add harm x", "rev-parse --show-toplevel", "fetch -q", "apply --index x.patch", "symbolic-ref HEAD x"),
)
"""Text that would appear in a repository."""


class Repository:
    """Hold a user's repository with uncommitted work."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self.git("init", "-q")
        self.git("config", "user.email", "a@b")
        self.git("config", "user.name", "n")
        (path / "tracked").write_text("one\n")
        self.git("add", "tracked")
        self.git("commit", "-qm", "one")
        (path / "tracked").write_text("one\nnot committed\n")
        (path / "untracked").write_text("mine\n")
        (path / "hook").write_text('#!/bin/sh\nexec "$@"\n')

    def git(self, *arguments: str, env: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=self.path, env={**os.environ, **(env or {})}, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    def seen(self) -> object:
        """Return all of it: files, refs, settings, the index, and what git says."""
        git = self.path / ".git"
        files = {
            str(path.relative_to(self.path)): path.read_bytes()
            for path in self.path.rglob("*")
            if path.is_file() and ".system" not in path.parts and "out" not in path.parts and git not in path.parents
        }
        said = [self.git("for-each-ref"), self.git("ls-files", "-s"), self.git("worktree", "list"), self.git("status")]
        return files, (git / "config").read_text(), (git / "HEAD").read_text(), said


@pytest.fixture
def repository(folder: Folder) -> Repository:
    return Repository(folder.path)


def of_hooks(repository: Repository) -> dict[str, str]:
    """Return the environment that git gives its hooks, and more of the kind."""
    git = str(repository.path / ".git")
    return {
        "GIT_DIR": git,
        "GIT_WORK_TREE": str(repository.path),
        "GIT_INDEX_FILE": f"{git}/index",
        "GIT_COMMON_DIR": git,
        "GIT_OBJECT_DIRECTORY": f"{git}/objects",
        "GIT_PREFIX": "",
        "GIT_NAMESPACE": "n",
        "GIT_CONFIG": f"{git}/config",
        "GIT_CONFIG_PARAMETERS": f"'core.worktree'='{repository.path}'",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.WorkTree",
        "GIT_CONFIG_VALUE_0": str(repository.path),
        "GIT_DISCOVERY_ACROSS_FILESYSTEM": "1",
    }


def steps(*places: str) -> str:
    """Return a pipeline whose step tries all harm in each place, also without its environment."""
    lines = [f"cd {place} && {{" for place in places]
    script = []
    for line in lines:
        script.append(line)
        for command in HARM:
            script.append(f"  git {command} || echo refused")
            script.append(f"  env -i PATH=$PATH git {command} || echo refused")
        script.append("}")
    body = "\n".join(f"        {line}" for line in script)
    return f"steps:\n  - {{id: sync, upload: workspace}}\n  - id: harm\n    run: |\n{body}\n"


def steps_above() -> str:
    """Return the same for pccpipe's folders above the record."""
    commands = [command for command in HARM if not command.startswith(("init", "clean"))]
    body = "\n".join(f"      git {each} || env -i PATH=$PATH git {each} || true" for each in (*commands, "clean -fdq"))
    step = "  - id: above\n    run: |\n      cd ../..\n{}\n      cd {}\n{}\n"
    return step.format(body, '"$UP"', body)


def fine(done: Done) -> None:
    assert done.code == 0, done.stdout + done.stderr


@pytest.mark.parametrize("runs_dir", [".system/runs", "out/runs", "own"])
def test_no_git_command_in_the_copy_reaches_the_users_repository(
    folder: Folder, repository: Repository, runs_dir: str
) -> None:
    if runs_dir == "own":
        (folder.path / "own").mkdir()
        (folder.path / "own/file").write_text("the user's\n")
    # From the copy, the record, the folder of all records, and the files of commands.
    text = steps('"$PCC_WORKSPACE"', '"$PCC_WORKSPACE/.."', "/")
    if runs_dir != "own":
        # `out` belongs to the user.
        text += steps_above().replace('"$UP"', ".." if runs_dir == ".system/runs" else ".")
    folder.pipeline(text)
    subprocess.run(["git", "add", "pipeline.yaml"], cwd=folder.path, check=True)
    before = repository.seen()
    arguments = ["run", "pipeline.yaml", "--run-id", "r", "--runs-dir", runs_dir]
    fine(folder.do(*arguments, env=of_hooks(repository)))
    if runs_dir != "own":
        assert repository.seen() == before
    assert (folder.path / "tracked").read_text() == "one\nnot committed\n"
    assert not (folder.path / ".git/refs/heads/harm").exists()
    fine(folder.do("show", "r", "--runs-dir", runs_dir))


def test_no_git_command_where_results_are_written_reaches_it(folder: Folder, repository: Repository) -> None:
    # A repository that the step made there would be hit instead.
    commands = [command for command in HARM if command != "init -q"]
    harm = "\n".join(f"          git {command} || env -i PATH=$PATH git {command} || true" for command in commands)
    folder.pipeline(f"""
steps:
  - {{id: sync, upload: workspace}}
  - id: harm
    run: |
          echo '{{}}' >"$PCC_OUT/a.json"
          cd "$PCC_OUT"/..
{harm}
    result: {{path: a.json}}
""")
    subprocess.run(["git", "add", "pipeline.yaml"], cwd=folder.path, check=True)
    before = repository.seen()
    fine(folder.do("run", "pipeline.yaml", "--run-id", "r"))
    assert repository.seen() == before


def test_a_copy_may_have_a_repository_of_its_own(folder: Folder, repository: Repository) -> None:
    folder.pipeline("""
        steps:
          - {id: sync, upload: workspace}
          - id: own
            run: |
              git init -q . && git add -A && git -c user.name=a -c user.email=b commit -qm theirs
              test "$(git rev-parse --show-toplevel)" = "$PWD"
              echo change >>tracked && git reset -q --hard
              if grep change tracked; then exit 9; fi
          - id: without
            run: |
              rm -rf .git
              printf 'a\\n' >x && git diff --no-index --no-prefix /dev/null x >y || true
              rm x && git apply -p0 y && test "$(cat x)" = a
          - {id: changes, diff: d.patch}
    """)
    before = repository.git("log", "--format=%H")
    fine(folder.do("run", "pipeline.yaml", "--run-id", "r", env=of_hooks(repository)))
    assert repository.git("log", "--format=%H") == before
    assert "+a" in (folder.path / ".system/runs/r/d.patch").read_text()


def test_a_hook_leads_no_step_to_its_repository(folder: Folder, repository: Repository) -> None:
    folder.pipeline("steps:\n  - {id: a, run: 'mkdir sub && cd sub && git init -q . && git rev-parse --git-dir'}\n")
    fine(folder.do("run", "pipeline.yaml", "--run-id", "r", env=of_hooks(repository)))
    assert (folder.path / "sub/.git/HEAD").exists()
    assert repository.git("config", "core.bare") == "false\n"


def test_settings_that_only_say_how_to_log_in_are_kept(folder: Folder, repository: Repository) -> None:
    folder.pipeline("steps:\n  - {id: a, run: 'test \"$(git config user.nickname)\" = me'}\n")
    env = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "user.nickname", "GIT_CONFIG_VALUE_0": "me"}
    fine(folder.do("run", "pipeline.yaml", "--run-id", "r", env=env))


def test_a_workspace_in_a_larger_repository_does_not_reach_it(folder: Folder, repository: Repository) -> None:
    (folder.path / "services/api").mkdir(parents=True)
    folder.pipeline("""
        steps:
          - id: up
            run: |
              mkdir -p deep && cd deep
              if git rev-parse --show-toplevel || git reset --hard; then exit 9; fi
    """)
    inner = Folder(folder.path / "services/api")
    fine(inner.do("run", "../../pipeline.yaml", "--run-id", "r", env=of_hooks(repository)))
    assert (folder.path / "tracked").read_text() == "one\nnot committed\n"


@pytest.mark.parametrize("runs_dir", [".system/runs", "out/runs"])
def test_a_record_outlives_git_clean_and_is_not_in_git_status(
    folder: Folder, repository: Repository, runs_dir: str
) -> None:
    folder.pipeline("steps:\n  - {id: a, run: 'git clean -fdq'}\n  - {id: b, run: 'git clean -fdxq; echo b'}\n")
    repository.git("add", ".")
    more = ["--runs-dir", runs_dir]
    fine(folder.do("run", "pipeline.yaml", "--run-id", "r", *more))
    fine(folder.do("show", "r", *more))
    assert (folder.path / runs_dir / "r/logs/b-1.stdout.log").read_text() == "b\n"
    fine(folder.do("run", "pipeline.yaml", "--run-id", "r2", *more))
    # No clean since then, so git does not know it.
    folder.pipeline("steps:\n  - {id: a, run: echo a}\n")
    fine(folder.do("run", "pipeline.yaml", "--run-id", "r3", *more))
    repository.git("add", ".")
    assert "r3" not in repository.git("ls-files") + repository.git("status", "--short", "--untracked-files=all")
    repository.git("clean", "-fdq")
    fine(folder.do("show", "r3", *more))


def test_a_record_that_is_removed_under_a_run_says_so(folder: Folder) -> None:
    folder.pipeline("steps:\n  - {id: a, run: 'touch begun; while [ ! -e go ]; do sleep 0.1; done; echo b'}\n")
    process = folder.start("run", "pipeline.yaml", "--run-id", "r")
    wait_until((folder.path / "begun").exists)
    # run.json may just be written.
    removed = "rm -rf .system || { sleep 0.5; rm -rf .system; }"
    subprocess.run(["sh", "-c", removed], cwd=folder.path, check=True)
    (folder.path / "go").touch()
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 3, stdout + stderr
    assert f"the folder {folder.path}/.system/run-state/r was removed during the run" in stdout
    assert f"the run's folder {folder.path}/.system/runs/r was removed during the run" in stdout
    shown = folder.do("show", "r")
    assert shown.code == 0, shown.stderr
    assert "was removed during the run" in shown.stdout


def test_the_records_of_other_runs_are_no_part_of_the_workspace(folder: Folder) -> None:
    folder.pipeline("steps:\n  - {id: sync, upload: workspace}\n  - {id: a, run: 'find . -name events.jsonl; ls'}\n")
    for run_id in ("r1", "r2"):
        fine(folder.do("run", "pipeline.yaml", "--run-id", run_id, "--runs-dir", "out/[runs]"))
    assert (folder.path / "out/[runs]/r2/logs/a-1.stdout.log").read_text() == "out\npipeline.yaml\n"


def test_files_in_the_place_of_a_new_runs_commands_are_not_read(folder: Folder) -> None:
    planted = folder.path / ".system/run-state/r"
    (planted / "commands").mkdir(parents=True)
    (planted / "proxy-port").write_text("not a number")
    (planted / "commands/a-1.out").symlink_to(folder.path)
    folder.pipeline("""
        steps:
          - id: a
            run: echo '{}' >"$PCC_OUT/a.json"; test ! -e "$PCC_OUT/../../proxy-port"
            result: {path: a.json}
    """)
    fine(folder.do("run", "pipeline.yaml", "--run-id", "r"))


def _link_system(path: Path, elsewhere: Path) -> None:
    (path / ".system").symlink_to(elsewhere)


def _link_runs(path: Path, elsewhere: Path) -> None:
    (path / ".system").mkdir()
    (path / ".system/runs").symlink_to(elsewhere)


def _link_run(path: Path, elsewhere: Path) -> None:
    (path / ".system/runs").mkdir(parents=True)
    (path / ".system/runs/r").symlink_to(elsewhere)


def _link_states(path: Path, elsewhere: Path) -> None:
    (path / ".system").mkdir()
    (path / ".system/run-state").symlink_to(elsewhere)


@pytest.mark.parametrize("link", [_link_system, _link_runs, _link_run, _link_states])
def test_a_record_is_never_kept_behind_a_link_in_the_workspace(
    folder: Folder, tmp_path_factory: pytest.TempPathFactory, link: Callable[[Path, Path], None]
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    folder.pipeline("steps:\n  - {id: a, run: touch ran}\n")
    link(folder.path, elsewhere)
    done = folder.do("run", "pipeline.yaml", "--run-id", "r")
    assert done.code == 2
    assert "is a symbolic link" in done.stderr
    assert not list(elsewhere.iterdir())
    assert not (folder.path / "ran").exists()
    if link is not _link_states:
        for command in ("resume", "show", "answer", "cancel", "logs"):
            done = folder.do(command, "r")
            assert (done.code, "symbolic link" in done.stderr or "no run" in done.stderr) == (2, True), done


def test_a_link_outside_of_the_workspace_is_followed(folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> None:
    (folder.path / ".system").symlink_to(tmp_path_factory.mktemp("elsewhere"))
    (folder.path / "code").mkdir()
    folder.pipeline("steps:\n  - {id: a, run: 'true'}\n")
    fine(folder.do("run", "pipeline.yaml", "--run-id", "r", "--workspace", "code"))


def test_a_folder_of_the_user_is_not_ignored_because_it_has_records(folder: Folder) -> None:
    folder.pipeline("steps: [{id: a, run: 'true'}]\n")
    inner = folder.path / "inner"
    inner.mkdir()
    subprocess.run(["git", "init", "-q", "."], cwd=inner, check=True)
    fine(Folder(inner).do("run", "../pipeline.yaml", "--run-id", "r", "--runs-dir", "."))
    assert not (inner / ".gitignore").exists()
    assert (inner / ".git/HEAD").is_file()
