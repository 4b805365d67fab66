"""The diff of two trees at home, one of which steps have had: whatever they made there."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from pccpipe.errors import ActionError
from pccpipe.secrets.mask import Masker
from pccpipe.workspace.diff import Made, make_diff
from pccpipe.workspace.exclude import Excluded
from pccpipe.workspace.intake import Limits
from pccpipe.workspace.pack import Pack
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


def made(trees: tuple[Path, Path], limits: Limits | None = None) -> Made:
    sent, now = trees
    with tempfile.TemporaryDirectory() as folder:
        pack = Pack(Path(folder))
        pack.take(sent, Excluded.only(()), NeverHalted(), anew=True)
        return make_diff(pack, now, Masker([SECRET]), limits or Limits())


def test_lines_and_files_are_counted_and_binary_ones_too(trees: tuple[Path, Path]) -> None:
    sent, now = trees
    (now / "text").write_text("a\nb\n")
    (now / "same").write_text("2\n")
    (sent / "bin").write_bytes(b"\0" * 100)
    (now / "bin").write_bytes(b"\1\0" * 100)
    (now / "link").symlink_to("same")
    os.utime(now / "same", (1, 1))
    changed = made(trees).changed
    assert (changed.files, changed.insertions, changed.deletions) == (5, 4, 2)


def test_many_files_of_another_time_are_no_change(trees: tuple[Path, Path]) -> None:
    for side in trees:
        for number in range(300):
            (side / f"f{number}").write_text("x\n")
            os.utime(side / f"f{number}", (number, len(side.name)))
    assert made(trees).changed.files == 1


def test_what_no_diff_can_have_is_told_and_left_out(trees: tuple[Path, Path]) -> None:
    _, now = trees
    os.mkfifo(now / "fifo")
    with (now / "sparse").open("wb") as file:
        file.truncate(50 << 30)
    (now / "away").symlink_to("/etc/passwd")
    (now / "a\nb").write_text("x\n")
    diff = made(trees)
    assert sorted(diff.changed.refused) == ["'fifo': no plain file", "'sparse': over 2048 MiB, the limit of a file"]
    assert b"root:" not in diff.patch
    assert b"+/etc/passwd\n" in diff.patch
    with pytest.raises(ActionError, match="over 2 files"):
        made(trees, Limits(files=2))


def test_a_secret_is_masked_in_text_and_keeps_a_binary_file_out(trees: tuple[Path, Path], tmp_path: Path) -> None:
    _, now = trees
    (now / "text").write_text(f"key {SECRET}\n")
    diff = made(trees)
    assert b"+key ***\n" in diff.masked
    assert diff.changed.masked == ("the patch",)
    (now / "text").write_text("fine\n")
    (now / "bin").write_bytes(b"\0" + SECRET.encode() * 3)
    diff = made(trees)
    assert diff.changed.masked == ("bin",)
    assert diff.changed.files == 2
    assert diff.patch == diff.masked
    assert b"bin" not in diff.patch
    (tmp_path / "patch").write_bytes(diff.patch)
    subprocess.run(["git", "apply", "--check", str(tmp_path / "patch")], cwd=tmp_path / "sent", check=True)


def test_a_diff_that_nobody_could_read_is_refused(trees: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pccpipe.workspace.diff.PATCH_LIMIT", 10_000)
    (trees[1] / "large").write_text("x\n" * 10_000)
    with pytest.raises(ActionError, match="which is the limit; exclude what is no work"):
        made(trees)
