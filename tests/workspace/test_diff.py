"""The diff of two local trees, of which steps changed one in any way."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec.structs import replace
from pytest_mock import MockerFixture

from pccpipe import limits
from pccpipe.cancel import Halt
from pccpipe.errors import ActionError, Halted
from pccpipe.limits import MARGIN, PAUSE
from pccpipe.secrets.mask import Masker
from pccpipe.workspace.base import Changed
from pccpipe.workspace.diff import make_diff
from pccpipe.workspace.exclude import Excluded
from pccpipe.workspace.intake import Limits
from pccpipe.workspace.pack import Pack
from tests.stall import measured
from tests.workspace.halts import NeverHalted

SECRET = "sk-very-secret-value"


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    for side in ("sent", "now"):
        (tmp_path / side).mkdir()
        (tmp_path / side / "same").write_text("1\n")
        (tmp_path / side / "gone").write_text("g\n")
    (tmp_path / "now/gone").unlink()
    return tmp_path / "sent", tmp_path / "now"


class Diff(NamedTuple):
    digest: str
    changed: Changed
    patch: bytes


def made(trees: tuple[Path, Path], most: Limits | None = None, halt: Halt | None = None) -> Diff:
    sent, now = trees
    with tempfile.TemporaryDirectory() as folder:
        pack = Pack(Path(folder))
        pack.store(sent, Excluded.only(()), NeverHalted(), full=True)
        into = Path(folder) / "patches" / "diff.patch"
        diff = make_diff(pack, now, Masker([SECRET]), most or Limits(), halt, into)
        assert [each.name for each in into.parent.iterdir()] == ["diff.patch"]
        return Diff(diff.digest, diff.changed, into.read_bytes())


def test_lines_and_files_and_binary_files_are_counted(trees: tuple[Path, Path]) -> None:
    sent, now = trees
    (now / "text").write_text("a\nb\n")
    (now / "same").write_text("2\n")
    (sent / "bin").write_bytes(b"\0" * 100)
    (now / "bin").write_bytes(b"\1\0" * 100)
    (now / "link").symlink_to("same")
    os.utime(now / "same", (1, 1))
    changed = made(trees).changed
    assert (changed.files, changed.insertions, changed.deletions) == (5, 4, 2)


def test_another_modification_time_is_not_a_change(trees: tuple[Path, Path]) -> None:
    for side in trees:
        for number in range(300):
            (side / f"f{number}").write_text("x\n")
            os.utime(side / f"f{number}", (number, len(side.name)))
    assert made(trees).changed.files == 1


def test_special_and_large_files_are_reported_and_left_out(trees: tuple[Path, Path]) -> None:
    _, now = trees
    os.mkfifo(now / "fifo")
    with (now / "sparse").open("wb") as file:
        file.truncate(50 << 30)
    (now / "away").symlink_to("/etc/passwd")
    (now / "a\nb").write_text("x\n")
    diff = made(trees)
    assert sorted(diff.changed.refused) == ["'fifo': not a plain file", "'sparse': over 2048 MiB, the limit of a file"]
    assert b"root:" not in diff.patch
    assert b"+/etc/passwd\n" in diff.patch
    with pytest.raises(ActionError, match="over 2 files"):
        made(trees, Limits(files=2))


def test_a_secret_is_masked_in_text_and_its_binary_file_is_left_out(trees: tuple[Path, Path], tmp_path: Path) -> None:
    _, now = trees
    (now / "text").write_text(f"key {SECRET}\n")
    diff = made(trees)
    assert b"+key ***\n" in diff.patch
    assert hashlib.sha256(diff.patch).hexdigest() != diff.digest
    assert diff.changed.masked == ("the patch",)
    (now / "text").write_text("fine\n")
    (now / "bin").write_bytes(b"\0" + SECRET.encode() * 3)
    diff = made(trees)
    assert diff.changed.masked == ("bin",)
    assert diff.changed.files == 2
    assert hashlib.sha256(diff.patch).hexdigest() == diff.digest
    assert b"bin" not in diff.patch
    (tmp_path / "patch").write_bytes(diff.patch)
    subprocess.run(["git", "apply", "--check", str(tmp_path / "patch")], cwd=tmp_path / "sent", check=True)


def test_a_huge_diff_is_refused(trees: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pccpipe.limits.PATCH", replace(limits.PATCH, most=10_000))
    (trees[1] / "large").write_text("x\n" * 10_000)
    with pytest.raises(ActionError, match="which is the limit; exclude generated files"):
        made(trees)


class _Cancelled(NeverHalted):
    """A halt that is requested while git runs."""

    @contextlib.contextmanager
    def watched_by(self, watcher: Callable[[], None]) -> Iterator[None]:
        timer = threading.Timer(0.3, self._cancel, [watcher])
        timer.start()
        yield
        timer.cancel()

    def _cancel(self, watcher: Callable[[], None]) -> None:
        self.cancel.request()
        self.at = time.monotonic()
        watcher()

    def check(self) -> None:
        if self.requested:
            raise Halted


def _slow_git(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    (folder / "bin").mkdir()
    (folder / "bin/git").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "bin/git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")


@pytest.mark.parametrize("script", ["exec sleep 60", "exec yes"])
def test_a_cancel_ends_git_at_once(
    trees: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr("pccpipe.limits.PATCH", replace(limits.PATCH, most=1 << 60))
    _slow_git(tmp_path, monkeypatch, script)
    halt = _Cancelled()
    with pytest.raises(Halted):
        made(trees, halt=halt)
    assert time.monotonic() - halt.at < 1


def test_git_without_enough_memory_fails_the_diff_only(
    trees: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pccpipe.limits.DIFF_MEMORY", replace(limits.DIFF_MEMORY, most=20 << 20))
    (trees[1] / "lines").write_bytes(b"\n" * (4 << 20))
    with pytest.raises(ActionError, match=r"git could not make the diff.*emory"):
        made(trees)


def test_git_is_killed_at_its_timeout(
    trees: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _slow_git(tmp_path, monkeypatch, "exec sleep 60")
    monkeypatch.setattr("pccpipe.workspace.git.TIMEOUT", 0.5)
    with pytest.raises(ActionError, match=r"git took over 0\.5 s"):
        made(trees)


def test_only_the_first_of_many_files_with_a_secret_are_named(trees: tuple[Path, Path]) -> None:
    for number in range(60):
        (trees[1] / f"bin{number:02}").write_bytes(b"\0" + SECRET.encode())
    changed = made(trees).changed
    assert changed.masked[-2:] == ("bin49", "10 more")
    assert len(changed.masked) == 51


_LARGE = """
    import os, tempfile
    from pathlib import Path
    from pccpipe.secrets.mask import Masker
    from pccpipe.workspace.diff import make_diff
    from pccpipe.workspace.exclude import Excluded
    from pccpipe.workspace.intake import Limits
    from pccpipe.workspace.pack import Pack
    from tests.workspace.halts import NeverHalted
    folder = tempfile.TemporaryDirectory()
    root = Path(folder.name)
    def diff():
        made = make_diff(pack, root / "now", Masker(["a-very-secret-value"]), Limits(), None, root / "p")
        assert (root / "p").stat().st_size > 150 << 20
        assert made.changed.masked
    for each in ("sent", "now", "pack"): (root / each).mkdir()
    pack = Pack(root / "pack")
    pack.store(root / "sent", Excluded.only(()), NeverHalted(), full=True)
    make_diff(pack, root / "now", Masker(["x"]), Limits(), None, root / "p")
    with (root / "now/large").open("wb") as file:
        file.write(b"a-very-secret-value ")
        for _ in range(160): file.write({line!r} * ((1 << 20) // len({line!r})))
"""


@pytest.mark.parametrize("line", [b"x", b"a line of text\n"], ids=["one line", "many lines"])
def test_a_large_patch_takes_little_memory_and_blocks_no_thread(line: bytes) -> None:
    pause, memory, said = measured(_LARGE.replace("{line!r}", repr(line)), "diff()")
    assert not said
    assert pause < PAUSE
    assert memory < MARGIN


class _After(NeverHalted):
    """A halt that is requested at one of its checks."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def check(self) -> None:
        self.looks -= 1
        if self.looks < 0:
            raise Halted


def test_a_cancel_ends_the_copy_of_one_large_file(tmp_path: Path) -> None:
    (tmp_path / "sent").mkdir()
    (tmp_path / "sent/large").write_bytes(bytes(20 << 20))
    pack = Pack(tmp_path / "pack")
    pack.store(tmp_path / "sent", Excluded.only(()), NeverHalted(), full=True)
    with pytest.raises(Halted):
        pack.put("large", tmp_path / "made", _After(3))
    assert (tmp_path / "made").stat().st_size < 2 << 20
    # The file is missing in the tree, so the diff reads only the copy that it makes.
    (tmp_path / "now").mkdir()
    with pytest.raises(Halted):
        make_diff(pack, tmp_path / "now", Masker([]), Limits(), _After(3))


def test_on_a_disk_that_ignores_case_a_missing_twin_does_not_look_deleted(
    trees: tuple[Path, Path], mocker: MockerFixture
) -> None:
    sent, now = trees
    for name in ("Readme", "README", "OUT.txt", "dir/same", "DIR/other"):
        (sent / name).parent.mkdir(exist_ok=True)
        (sent / name).write_text("before\n")
    (now / "README").write_text("after\n")
    (now / "dir").mkdir()
    (now / "dir/same").write_text("before\n")
    mocker.patch("pccpipe.workspace.diff.takes_for_one", return_value=True)
    diff = made(trees)
    why = "the disk of this machine takes its name for that of another file"
    assert diff.changed.refused == (f"'DIR': {why}", f"'Readme': {why}")
    assert b"Readme" not in diff.patch
    assert b"DIR" not in diff.patch
    assert b"+after" in diff.patch
    # It is missing, and nothing else has its name.
    assert b"-before" in diff.patch.partition(b"OUT.txt")[2]


def test_macos_files_that_an_earlier_version_sent_do_not_look_deleted(trees: tuple[Path, Path]) -> None:
    sent, _ = trees
    for name in (".DS_Store", "._same"):
        (sent / name).write_text("x")
    diff = made(trees)
    assert (diff.changed.files, diff.changed.deletions) == (1, 1)
    assert b"+++ /dev/null" in diff.patch
    assert b"DS_Store" not in diff.patch
    assert b"._same" not in diff.patch


def test_a_git_that_only_asks_for_xcodes_tools_gives_a_hint(
    trees: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = tmp_path / "bin" / "git"
    git.parent.mkdir()
    said = "xcrun: error: invalid active developer path (/Library/Developer/CommandLineTools), missing xcrun"
    git.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 72\n")
    git.chmod(0o755)
    monkeypatch.setenv("PATH", f"{git.parent}:{os.environ['PATH']}")
    with pytest.raises(ActionError, match="xcrun: error") as caught:
        made(trees)
    assert caught.value.hint == "xcode-select --install"
