"""`git: base` gives the copies a repository with one commit of what was sent, and it never comes back."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pccpipe.errors import ActionError
from pccpipe.ssh.connection import Connection
from pccpipe.workspace.base import Side
from pccpipe.workspace.sync import WorkspaceSync
from tests.workspace.halts import NeverHalted
from tests.workspace.test_sync import Pair, connection

NEVER = NeverHalted()
__all__ = ["connection"]


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode("utf-8", "surrogateescape")


def local(folder: Path) -> WorkspaceSync:
    (folder / "user").mkdir(exist_ok=True)
    return WorkspaceSync(folder / "user", folder / "copy", folder / "sent", None, "", folder / "workspace.json")


def test_git_shows_an_agents_changes_and_nothing_else(tmp_path: Path) -> None:
    sync = local(tmp_path)
    user = tmp_path / "user"
    odd = ['we"ird\nname \\ x', "a b", b"\xff\xfe".decode("utf-8", "surrogateescape"), "ä", '"', "-x"]
    for name in odd:
        (user / name).write_text(name.encode("utf-8", "surrogateescape").hex())
    (user / "sub/inner").mkdir(parents=True)
    (user / "sub/inner/deep").write_text("deep")
    (user / "sub.x").write_text("sorts between sub and sub/")
    (user / "empty").mkdir()
    (user / "link").symlink_to("a b")
    (user / "run.sh").write_text("#!/bin/sh\n")
    (user / "run.sh").chmod(0o755)
    # None of these may make a file look changed, or hide one.
    (user / "crlf.txt").write_bytes(b"a\r\nb\r\n")
    (user / ".gitattributes").write_text("*.txt text eol=lf\nsub/** filter=lfs ident working-tree-encoding=UTF-16\n")
    (user / ".gitignore").write_text("*.txt\nsub/\n")
    sync.upload([], NEVER, with_git=True)
    sync.ensure_local(NEVER)
    copy = tmp_path / "copy"
    assert git(copy, "status", "--porcelain") == ""
    assert git(copy, "fsck", "--strict") == ""
    assert len(git(copy, "ls-files", "-z").split("\0")) - 1 == len(odd) + 7
    assert git(copy, "log", "--format=%an %ae %ad %s", "--date=unix") == (
        "pccpipe pccpipe@localhost 946684800 the workspace as pccpipe uploaded it\n"
    )
    assert git(copy, "branch", "--show-current") == "main\n"
    assert git(copy, "remote") == ""
    (copy / "a b").write_text("changed\n")
    (copy / "new").write_text("new\n")
    (copy / "run.sh").chmod(0o644)
    (copy / "link").unlink()
    assert git(copy, "status", "--porcelain").splitlines() == [' M "a b"', " D link", " M run.sh", "?? new"]
    assert "+changed" in git(copy, "diff")


def test_the_same_files_give_the_same_commit_whatever_the_user_has_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = []
    for name in ("plain", "set"):
        folder = tmp_path / name
        folder.mkdir()
        sync = local(folder)
        (folder / "user/a.txt").write_bytes(b"a\r\n")
        if name == "set":
            git(folder / "user", "init", "-q", "-b", "mine")
            hook = folder / "user/.git/hooks/post-commit"
            hook.parent.mkdir(exist_ok=True)
            home = tmp_path / "home"
            (home / "template/hooks").mkdir(parents=True)
            bad = f"#!/bin/sh\ntouch {tmp_path}/ran\n"
            for script in (hook, home / "template/hooks/reference-transaction"):
                script.write_text(bad)
                script.chmod(0o755)
            (home / ".gitconfig").write_text(
                f"[init]\n\ttemplateDir = {home}/template\n"
                f"[core]\n\tautocrlf = true\n\thooksPath = {home}/template/hooks\n[user]\n\tname = secret name\n"
            )
            monkeypatch.setenv("HOME", str(home))
            monkeypatch.setenv("GIT_AUTHOR_NAME", "other")
            monkeypatch.setenv("GIT_DIR", str(folder / "user/.git"))
        sync.upload([], NEVER, with_git=True)
        sync.ensure_local(NEVER)
        monkeypatch.undo()
        commits.append(git(folder / "copy", "rev-parse", "HEAD"))
        assert not (folder / "copy/.git/hooks").exists()
    assert commits[0] == commits[1]
    assert not (tmp_path / "ran").exists()


def test_a_missing_git_leaves_nothing_half_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = local(tmp_path)
    (tmp_path / "user/a").write_text("a")
    empty = tmp_path / "bin"
    empty.mkdir()
    (empty / "sh").symlink_to(shutil.which("sh") or "/bin/sh")
    monkeypatch.setenv("PATH", str(empty))
    with pytest.raises(ActionError, match="git is not installed"):
        sync.upload([], NEVER, with_git=True)
    assert not (tmp_path / "copy").exists()
    sync.upload([], NEVER)
    with pytest.raises(ActionError, match="git is not installed"):
        sync.upload([], NEVER, with_git=True)
    sync.ensure_local(NEVER)
    assert not (tmp_path / "copy/.git").exists()
    monkeypatch.undo()
    sync.upload([], NEVER, with_git=True)
    sync.ensure_local(NEVER)
    assert git(tmp_path / "copy", "status", "--porcelain") == ""
    assert [path.name for path in (tmp_path / "sent").iterdir() if path.name.startswith("git.")] == []


def test_a_local_step_before_the_upload_does_not_make_its_copy_look_removed(tmp_path: Path) -> None:
    sync = local(tmp_path)
    (tmp_path / "user/a").write_text("a")
    sync.mark_changed(Side.LOCAL)
    sync.upload([], NEVER)
    sync.ensure_local(NEVER)
    assert (tmp_path / "copy/a").read_text() == "a"
    assert not sync.has_undiffed_changes()


def test_a_later_upload_and_a_resumed_run_have_their_own_commit(tmp_path: Path) -> None:
    sync = local(tmp_path)
    (tmp_path / "user/a").write_text("a")
    sync.upload([], NEVER, with_git=True)
    resumed = local(tmp_path)
    resumed.resume()
    assert resumed.has_git
    resumed.ensure_local(NEVER)
    assert git(tmp_path / "copy", "status", "--porcelain") == ""
    (tmp_path / "user/b").write_text("b")
    # A later upload without the key: an old commit beside new files would be wrong.
    resumed.upload([], NEVER)
    resumed.ensure_local(NEVER)
    assert git(tmp_path / "copy", "ls-files").split() == ["a", "b"]
    assert git(tmp_path / "copy", "rev-list", "--count", "HEAD") == "1\n"


def there(pair: Pair, command: str) -> str:
    return pair.there(f"git {command}")


@pytest.fixture
def pair(tmp_path: Path, connection: Connection) -> Pair:
    return Pair(tmp_path, connection)


def test_a_hostile_repository_on_the_vm_never_comes_back(pair: Pair, tmp_path: Path) -> None:
    (pair.user / "a").write_text("a\n")
    pair.sync.upload([], NEVER, with_git=True)
    assert there(pair, "status --porcelain") == ""
    pair.change_there(
        "echo b >>a; git config core.fsmonitor 'touch /tmp/ran'; git config user.email x; git config user.name x;"
        "mkdir -p .git/hooks; printf '#!/bin/sh\\ntouch /tmp/ran' >.git/hooks/pre-commit; chmod -R 500 .git/hooks"
    )
    assert pair.sync.prepare(Side.LOCAL, NEVER)
    copy = tmp_path / "copy"
    assert sorted(path.name for path in (copy / ".git").iterdir()) == [
        *("HEAD", "config", "index", "info", "objects", "refs"),
    ]
    assert "fsmonitor" not in (copy / ".git/config").read_text()
    assert git(copy, "status", "--porcelain") == " M a\n"
    changed = pair.sync.diff(tmp_path / "diff.patch", NEVER)
    assert (changed.files, changed.refused) == (1, ())
    assert ".git" not in (tmp_path / "diff.patch").read_text().replace("diff --git", "")
    got = pair.sync.download([".git", "a"], tmp_path / "artifacts", NEVER)
    assert got.files == 1
    assert not (tmp_path / "artifacts/.git").exists()
    # A later upload gives the VM its own again, whatever a step made of it.
    pair.there("chmod -R u+w .git; rm -rf .git; ln -s /tmp .git")
    (pair.user / "c").write_text("c\n")
    pair.sync.upload([], NEVER, with_git=True)
    assert there(pair, "status --porcelain") == ""
    assert there(pair, "ls-files").split() == ["a", "c"]
    assert pair.there("ls -d /tmp") == "/tmp\n"


def test_a_step_elsewhere_keeps_the_commit_of_what_was_uploaded(pair: Pair, tmp_path: Path) -> None:
    (pair.user / "a").write_text("a\n")
    pair.sync.upload([], NEVER, with_git=True)
    first = there(pair, "rev-parse HEAD")
    pair.sync.prepare(Side.LOCAL, NEVER)
    (tmp_path / "copy/local").write_text("made locally\n")
    pair.sync.mark_changed(Side.LOCAL)
    pair.sync.prepare(Side.VM, NEVER)
    assert there(pair, "rev-parse HEAD") == first == git(tmp_path / "copy", "rev-parse", "HEAD")
    assert there(pair, "status --porcelain") == "?? local\n"
    pair.sync.remove(NEVER)
    assert git(tmp_path / "copy", "status", "--porcelain") == "?? local\n"


def test_a_repository_that_was_half_sent_is_none_and_the_next_transfer_completes_it(pair: Pair) -> None:
    (pair.user / "a").write_text("a\n")
    pair.sync.upload([], NEVER, with_git=True)
    pair.there("rm .git/HEAD .git/index")
    pair.sync.mark_changed(Side.LOCAL)
    pair.sync.prepare(Side.VM, NEVER)
    assert there(pair, "status --porcelain") == ""


def test_the_repository_is_never_a_file_of_the_users_folder(pair: Pair) -> None:
    (pair.user / "a").write_text("a\n")
    git(pair.user, "init", "-q")
    before = set((pair.user / ".git").rglob("*"))
    pair.sync.upload([], NEVER, with_git=True)
    assert set((pair.user / ".git").rglob("*")) == before
    assert there(pair, "ls-files").split() == ["a"]
