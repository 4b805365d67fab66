"""A local copy with locked files, for a user who is not root."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

# Imported here: the child process, as another user, may not be able to import them.
import pccpipe.workspace.diff  # noqa: F401
from pccpipe.errors import ActionError
from pccpipe.workspace.base import Side
from pccpipe.workspace.folder import has_others_files, remove_tree, tree_size
from pccpipe.workspace.sync import WorkspaceSync
from tests.e2e.control import wait_until
from tests.workspace.halts import NeverHalted

NEVER = NeverHalted()
NOBODY = 65534


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder of the user `nobody`, with a user's folder in it."""
    if os.geteuid() != 0:
        pytest.skip("becomes another user")
    for each in (tmp_path, *tmp_path.parents):
        if each.stat().st_mode & 0o001 == 0:
            each.chmod(each.stat().st_mode | 0o011)
    (tmp_path / "user/src").mkdir(parents=True)
    (tmp_path / "user/app.txt").write_text("broken\n")
    (tmp_path / "user/src/main.c").write_text("int main;\n")
    for each in (tmp_path, *tmp_path.rglob("*")):
        os.chown(each, NOBODY, NOBODY)
    return tmp_path


def as_nobody(work: Callable[[Path], Any], folder: Path) -> Any:
    """Return the result of `work` when a user without rights does it."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)

    def child() -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        there.send(work(folder))

    process = context.Process(target=child)
    process.start()
    there.close()
    try:
        return here.recv()
    finally:
        process.join(30)


def workspace(folder: Path) -> WorkspaceSync:
    sync = WorkspaceSync(folder / "user", folder / "copy", folder / "sent", None, "", folder / "workspace.json")
    sync.resume()
    return sync


def leaves(folder: Path) -> None:
    """Play a step that leaves files which its user may not read, and folders which he may not write."""
    sync, copy = workspace(folder), folder / "copy"
    sync.upload([], NEVER)
    sync.prepare(Side.LOCAL, NEVER)
    (copy / "app.txt").write_text("fixed\n")
    (copy / "locked/deeper").mkdir(parents=True)
    (copy / "locked/deeper/f").write_text("x\n")
    (copy / "read-only").mkdir()
    (copy / "read-only/g").write_text("y\n")
    (copy / "src/main.c").chmod(0)
    (copy / "secretive").write_text("z\n")
    for name, mode in (("read-only", 0o555), ("locked/deeper", 0), ("locked", 0), ("secretive", 0)):
        (copy / name).chmod(mode)
    sync.mark_changed(Side.LOCAL)


def diff(folder: Path) -> tuple[list[str], str]:
    changed = workspace(folder).diff(folder / "diff.patch", NEVER)
    return sorted(changed.refused), (folder / "diff.patch").read_text()


def test_the_diff_has_all_files_of_the_owner(folder: Path) -> None:
    as_nobody(leaves, folder)
    refused, patch = as_nobody(diff, folder)
    assert refused == []
    assert "+fixed\n" in patch
    for name in ("locked/deeper/f", "read-only/g", "secretive"):
        assert f"b/{name}" in patch
    assert "main.c" not in patch


def test_files_of_another_user_are_named_and_do_not_look_deleted(folder: Path) -> None:
    as_nobody(leaves, folder)
    for each in ("src", "secretive"):
        os.chown(folder / "copy" / each, 0, 0)
    (folder / "copy/src").chmod(0o700)
    # Readable, but the kernel refuses hard links to it (fs.protected_hardlinks).
    (folder / "copy/roots").write_text("root's\n")
    (folder / "copy/roots-link").symlink_to("roots")
    refused, patch = as_nobody(diff, folder)
    assert refused == [
        "'secretive': unreadable: it belongs to another user",
        "'src': unreadable: it belongs to another user",
    ]
    assert "+fixed\n" in patch
    assert "+root's\n" in patch
    assert "b/roots-link" in patch
    assert "deleted" not in patch


def test_files_of_a_local_containers_root_are_fetched_and_removed(folder: Path) -> None:
    """The root of a local container is root on this machine: it opens the files of root, and nothing else."""

    def ask_root(script: str) -> bool:
        (folder / "script").write_text(script)
        (folder / "script").rename(folder / "asked")
        wait_until((folder / "done").exists)
        return True

    def diff_and_remove(folder: Path) -> tuple[list[str], str, bool]:
        sync = WorkspaceSync(
            folder / "user", folder / "copy", folder / "sent", None, "", folder / "workspace.json", root=ask_root
        )
        sync.resume()
        changed = sync.diff(folder / "diff.patch", NEVER)
        return list(changed.refused), (folder / "diff.patch").read_text(), remove_tree(folder / "copy")

    as_nobody(leaves, folder)
    copy = folder / "copy"
    (copy / "cache").mkdir()
    (copy / "cache/f").write_text("root's\n")
    (copy / "cache").chmod(0o700)
    (copy / "cache/out").symlink_to(folder / "precious")
    (folder / "precious").write_text("private\n")
    (folder / "precious").chmod(0o600)
    os.chown(copy / "src", 0, 0)
    (copy / "src").chmod(0o700)

    def root() -> None:
        wait_until((folder / "asked").exists)
        subprocess.run(["sh", "-c", (folder / "asked").read_text()], cwd=copy, check=True)
        (folder / "done").touch()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(root)
        refused, patch, is_gone = as_nobody(diff_and_remove, folder)
        done.result()
    assert refused == []
    assert "+root's\n" in patch
    assert "main.c" not in patch
    assert "old mode" not in patch
    assert is_gone
    assert (folder / "precious").stat().st_mode & 0o777 == 0o600


def test_a_download_names_unreadable_files_and_copies_the_rest(folder: Path) -> None:
    def download(folder: Path) -> Any:
        into = folder / "artifacts"
        downloaded = workspace(folder).download(["locked", "src", "app.txt", "secretive"], into, NEVER)
        return downloaded.missing, downloaded.refused, sorted(path.name for path in into.iterdir())

    as_nobody(leaves, folder)
    os.chown(folder / "copy/src", 0, 0)
    (folder / "copy/src").chmod(0o700)
    missing, refused, came = as_nobody(download, folder)
    assert (missing, refused) == ((), ("'src': unreadable: it belongs to another user",))
    assert came == ["app.txt", "locked", "secretive"]


def test_the_users_own_folder_is_not_changed(folder: Path) -> None:
    def upload(folder: Path) -> str:
        with pytest.raises(ActionError) as caught:
            workspace(folder).upload([], NEVER)
        return str(caught.value)

    (folder / "user/src").chmod(0)
    assert "user/src: Permission denied" in as_nobody(upload, folder)
    assert (folder / "user/src").stat().st_mode & 0o777 == 0


def test_a_tree_that_its_owner_may_not_write_is_removed(folder: Path) -> None:
    as_nobody(leaves, folder)
    assert as_nobody(lambda folder: remove_tree(folder / "copy"), folder) is True
    assert not (folder / "copy").exists()


def test_only_the_link_itself_is_removed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "link").symlink_to("precious")
    assert remove_tree(tmp_path / "link")
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_a_tree_deeper_than_pythons_recursion_is_measured_and_goes(tmp_path: Path) -> None:
    deep = tmp_path / "copy"
    deep.mkdir()
    folder = os.open(deep, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=folder)
        folder, above = os.open("d", os.O_RDONLY, dir_fd=folder), folder
        os.close(above)
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=folder))
    os.close(folder)
    assert not has_others_files(deep)
    assert tree_size(deep) == 0
    assert remove_tree(deep)
