"""An upload is kept as an archive that GNU tar reads, and unpacks to the same tree."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from pccpipe import limits
from pccpipe.errors import ActionError, Halted
from pccpipe.secrets.values import Secrets
from pccpipe.workspace import pack as pack_module
from pccpipe.workspace.entry import Entry
from pccpipe.workspace.exclude import Excluded
from pccpipe.workspace.folder import walk
from pccpipe.workspace.guard import Guard
from pccpipe.workspace.pack import Pack
from tests.workspace.halts import NeverHalted

NEVER = NeverHalted()
ALL = Excluded.only(())


def tree(root: Path) -> list[tuple[Entry, bytes]]:
    """Return all facts of a tree."""
    return [
        (found.entry, (root / found.entry.path).read_bytes() if stat.S_ISREG(found.entry.mode) else b"")
        for found in walk(root, ALL)
    ]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make files of every name, size, time and mode."""
    root = tmp_path / "root"
    for name in (
        "a",
        "d/e/f",
        "-rf",
        "two\nlines",
        "latin-\udce4",
        "ü" * 80,
        "n" * 100,
        "m" * 101,
        "l" * 200 + "/" + "k" * 250,
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name * 3, errors="surrogateescape")
    for size in (
        0,
        511,
        512,
        513,
        limits.SEARCHED.most - 1,
        limits.SEARCHED.most,
        limits.SEARCHED.most + 1,
        3 * limits.SEARCHED.most + 7,
    ):
        (root / f"size-{size}").write_bytes(os.urandom(size))
    (root / "link").symlink_to("a")
    (root / "long-link").symlink_to("t" * 300)
    (root / "empty").mkdir()
    os.mkfifo(root / "fifo")
    (root / "d/e/f").chmod(0o751)
    (root / "d").chmod(0o555)
    for number, (name, time) in enumerate(
        (("a", 0), ("-rf", 1_700_000_000 * 10**9), ("d", 10**9 - 1), ("link", 5 * 10**8))
    ):
        os.utime(root / name, ns=(time, time + number), follow_symlinks=False)
    return root


def taken(root: Path, folder: Path) -> Pack:
    pack = Pack(folder)
    pack.store(root, ALL, NEVER, full=True)
    return pack


def test_gnu_tar_unpacks_the_same_tree(root: Path, tmp_path: Path) -> None:
    pack = taken(root, tmp_path / "pack")
    (root / "fifo").unlink()
    out = tmp_path / "out"
    out.mkdir()
    done = subprocess.run(
        ["tar", "-xpf", "-", "-C", out, "--no-same-owner"],
        input=b"".join(pack.pieces(pack.entries)),
        capture_output=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert tree(out) == tree(root)


def test_it_unpacks_to_the_same_tree_also_in_another_process(root: Path, tmp_path: Path) -> None:
    taken(root, tmp_path / "pack")
    (root / "fifo").unlink()
    (root / "d").chmod(0o755)  # unpacking makes folders whose owner can empty them
    os.utime(root / "d", ns=(0, 10**9 + 1))
    Pack.open(tmp_path / "pack").unpack(tmp_path / "out", NEVER)
    assert [entry for entry in tree(tmp_path / "out") if entry[0].link == ""] == [
        entry for entry in tree(root) if entry[0].link == ""
    ]
    assert (tmp_path / "out/long-link").readlink() == Path("t" * 300)


def test_a_size_beyond_octal_digits_is_binary(tmp_path: Path) -> None:
    from pccpipe.workspace import tar

    head = tar.head(Entry("a", stat.S_IFREG | 0o644, 9 << 30, 10**9))
    assert tar.size_of(head) == 9 << 30
    listed = subprocess.run(["tar", "-tvf", "-"], input=head, capture_output=True, text=False, check=False).stdout
    assert str(9 << 30).encode() in listed
    with pytest.raises(tar.NotTar):
        tar.size_of(b"x" + head[1:])


def test_an_unchanged_file_is_not_read_again(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = taken(root, tmp_path / "pack")
    before = (tmp_path / "pack/1.tar").stat().st_size
    (root / "a").write_text("other")
    (root / "new").write_text("new")
    (root / "-rf").unlink()
    looked_at: list[str] = []
    monkeypatch.setattr(Guard, "look_at", lambda _, name, data: looked_at.append(name))
    pack.store(root, ALL, NEVER, Guard((), Secrets()), full=False)
    assert looked_at == ["a", "new"]
    assert (tmp_path / "pack/1.tar").stat().st_size - before == 2 * 4 * 512
    (root / "fifo").unlink()
    pack.unpack(tmp_path / "out", NEVER)
    assert (tmp_path / "out/a").read_text() == "other"
    assert [entry.path for entry, _ in tree(tmp_path / "out")] == [entry.path for entry, _ in tree(root)]


def test_an_archive_that_is_mostly_waste_is_rewritten(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    pack = Pack(tmp_path / "pack")
    for number in range(5):
        (root / "a").write_bytes(bytes([number]) * 100_000)
        pack.store(root, ALL, NEVER, full=False)
        assert pack.read("a") == bytes([number]) * 100_000
    sizes = [path.stat().st_size for path in (tmp_path / "pack").glob("*.tar")]
    assert len(sizes) == 1
    assert sizes[0] < 350_000


class Later(NeverHalted):
    """A halt that is requested at the fifth check."""

    left = 5

    def check(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Halted("cancelled")


def test_a_failed_snapshot_leaves_the_earlier_one(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = Pack(tmp_path / "pack")
    with pytest.raises(Halted):
        pack.store(root, ALL, Later(), full=True)
    assert not (tmp_path / "pack").exists()
    pack = taken(root, tmp_path / "pack")
    before = {path: path.read_bytes() for path in (tmp_path / "pack").iterdir()}
    (root / "a").write_text("other")
    for full in (True, False):
        with pytest.raises(Halted):
            pack.store(root, ALL, Later(), full=full)
        assert {path: path.read_bytes() for path in (tmp_path / "pack").iterdir()} == before

    def disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device", "index.json")

    monkeypatch.setattr(pack_module, "write_atomically", disk_full)
    with pytest.raises(ActionError, match="No space left on device"):
        pack.store(root, ALL, NEVER, full=False)
    assert {path: path.read_bytes() for path in (tmp_path / "pack").iterdir()} == before
    assert pack.read("a") == b"aaa"


def test_a_file_that_shrinks_while_it_is_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "log").write_bytes(bytes(2 * limits.SEARCHED.most))

    class Truncating(Guard):
        def look_at(self, relative: str, data: bytes) -> None:
            os.truncate(root / "log", limits.SEARCHED.most)

    with pytest.raises(ActionError, match="log: it became shorter while pccpipe read it"):
        Pack(tmp_path / "pack").store(root, ALL, NEVER, Truncating((), Secrets()), full=True)
