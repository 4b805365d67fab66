"""Intake reads and writes only inside the new folder, whatever a hostile place lists or sends."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pytest_mock import MockerFixture

from pccpipe import limits
from pccpipe.errors import ActionError
from pccpipe.machine.base import Process
from pccpipe.machine.local import LocalMachine
from pccpipe.secrets.mask import Masker
from pccpipe.workspace.allowed import link_refusal, name_refusal
from pccpipe.workspace.choice import Choice
from pccpipe.workspace.copy import KnownFolder, copy_paths, merge
from pccpipe.workspace.entry import Entry
from pccpipe.workspace.exclude import Excluded
from pccpipe.workspace.fetch import fetch_paths, fetch_tree
from pccpipe.workspace.intake import TWIN, Counted, Intake, Limits
from tests.growth import is_linear

FILE, FOLDER, LINK, FIFO = (kind | 0o755 for kind in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO))
SECRET = "sk-very-secret-value"
MASKER = Masker([SECRET])
parts = st.sampled_from([".git", "a", "b", "c", "..", ".", "", "x\n", "\x1b[2J", "\udcff", "n" * 256])
paths = st.lists(parts, min_size=1, max_size=5).map("/".join)
short_paths = st.lists(st.sampled_from(["a", "b", ".."]), min_size=1, max_size=4).map("/".join)
entries = st.lists(
    st.builds(Entry, paths, st.sampled_from([FILE, FOLDER, LINK, FIFO, 0]), st.integers(0, 20), st.just(1), paths),
    max_size=30,
)


def outside(folder: Path) -> list[Path]:
    """Return the paths of a tree that lead out of it, even to missing files."""
    return [path for path in folder.rglob("*") if not leads_inside(folder, path)]


def leads_inside(root: Path, path: Path) -> bool:
    """Follow a path name by name like the kernel; a cycle leads nowhere."""
    left, at = list(path.relative_to(root).parts), root
    for _ in range(200):
        if not left:
            return True
        name = left.pop(0)
        if name == "..":
            if at == root:
                return False
            at = at.parent
        elif (at / name).is_symlink():
            text = os.fspath((at / name).readlink())
            if text.startswith("/"):
                return False
            left = [*PurePosixPath(text).parts, *left]
        else:
            at = at / name
    return True


@given(entries)
@settings(max_examples=200, deadline=None)
def test_no_listed_entry_leads_out_of_the_folder(listed: list[Entry]) -> None:
    with tempfile.TemporaryDirectory() as name:
        above = Path(name)
        intake = Intake(above / "in", Limits())
        for entry in listed:
            intake.admit(entry)
        for path in intake.wanted:
            assert intake.write(path, 2, [b"x", b"y"])
        for entry in listed:
            assert not intake.write(entry.path, 2, [b"x", b"y"])
        intake.finish()
        assert [path.name for path in above.iterdir()] == ["in"]
        assert outside(above / "in") == []


@given(st.lists(st.tuples(paths | short_paths, paths | short_paths), max_size=8))
@example([("a/b/x", "../.."), ("a/b/l", "x/../..")])
@settings(max_examples=200, deadline=None)
def test_an_admitted_link_stays_inside_with_any_others(links: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "root"
        root.mkdir()
        for at, says in links:
            if name_refusal(at) or link_refusal(at, says):
                continue
            parent = (root / at).parent
            if any(folder.is_symlink() for folder in [parent, *parent.parents]):
                continue  # intake makes nothing through a link
            with contextlib.suppress(OSError):
                parent.mkdir(parents=True, exist_ok=True)
                (root / at).symlink_to(says)
        assert outside(root) == []


def test_limits_hold_during_the_listing_and_the_transfer(tmp_path: Path) -> None:
    intake = Intake(tmp_path / "in", Limits(files=3, bytes=100, file=60))
    assert not intake.admit(Entry("big", FILE, 61))
    assert intake.admit(Entry("a", FILE, 60))
    with pytest.raises(ActionError, match="over 100 bytes would be fetched"):
        intake.admit(Entry("b", FILE, 60))
    with pytest.raises(ActionError, match="over 3 files"):
        intake.admit(Entry("c", FILE, 0))
    with pytest.raises(ActionError, match="grew over 60 bytes"):
        intake.write("a", 61, [])
    assert not list((tmp_path / "in").iterdir())


def test_many_refused_names_are_counted_and_few_are_named(tmp_path: Path) -> None:
    intake = Intake(tmp_path / "in", Limits())
    for number in range(1000):
        intake.admit(Entry(f"f{number}", FIFO))
    refusals = intake.finish().refusals
    assert len(refusals) == 51
    assert refusals[-1] == "and 950 more"


class Scripted(LocalMachine):
    """A machine that answers with a given listing and a given tar stream."""

    def __init__(self, folder: Path, listing: bytes, stream: bytes) -> None:
        super().__init__()
        self._folder = folder
        (folder / "listing").write_bytes(listing)
        (folder / "stream").write_bytes(stream)

    def popen(self, command: str) -> Process:
        name = "listing" if "exec find" in command else "stream"
        return super().popen(f"cat {self._folder / name}")


def listed(*names: str, kind: str = "f", size: int = 3, link: str = "") -> bytes:
    return b"".join(f"{kind} {size} 1.5 644 ./{name}\0{link}\0".encode() for name in names)


def packed(*members: tuple[str, bytes, str], style: int = tarfile.GNU_FORMAT) -> bytes:
    """Make a tar stream of (name, type, content or text of a link)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=style) as archive:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind == tarfile.REGTYPE:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content.encode()))
            else:
                member.linkname = content
                archive.addfile(member)
    return buffer.getvalue()


Fetch = Callable[[bytes, bytes], Counted]


@pytest.fixture
def fetch(tmp_path: Path) -> Fetch:
    """Fetches a tree from a machine with these answers."""
    (tmp_path / "known").mkdir()
    (tmp_path / "vm").mkdir()

    def fetched(listing: bytes, stream: bytes) -> Counted:
        machine = Scripted(tmp_path / "vm", listing, stream)
        limits = Limits(files=100, bytes=1 << 20, file=1 << 19)
        return fetch_tree(machine, "/", KnownFolder(tmp_path / "known"), tmp_path / "in", Excluded(), limits)

    return fetched


def test_requested_files_are_taken_as_listed(fetch: Fetch, tmp_path: Path) -> None:
    long = "d/" + "n" * 150
    counted = fetch(
        listed("d", kind="d") + listed("a", long, "gone") + listed("l", kind="l", link="a"),
        packed(("./a", tarfile.REGTYPE, "abc"), (f"./{long}", tarfile.REGTYPE, "longer")),
    )
    assert (counted.files, counted.bytes, counted.refused) == (3, 9, [])
    assert (tmp_path / "in" / long).read_text() == "longer"
    assert (tmp_path / "in/a").stat().st_mtime == 1.5
    assert (tmp_path / "in/l").read_text() == "abc"


@pytest.mark.parametrize(
    ("stream", "says"),
    [
        (packed(("../../evil", tarfile.REGTYPE, "x")), "not asked for"),
        (packed(("/etc/evil", tarfile.REGTYPE, "x")), "not asked for"),
        (packed(("./b", tarfile.REGTYPE, "x")), "not asked for"),
        (packed(("./a", tarfile.REGTYPE, "x"), ("./a", tarfile.REGTYPE, "y")), "not asked for"),
        (packed(("./a", tarfile.SYMTYPE, "/etc/passwd")), "not a plain file"),
        (packed(("./a", tarfile.LNKTYPE, "/etc/passwd")), "not a plain file"),
        (packed(("./a", tarfile.CHRTYPE, "")), "not a plain file"),
        (packed(("./a", tarfile.GNUTYPE_SPARSE, "")), "not a plain file"),
        (packed(("./" + "ü" * 200, tarfile.REGTYPE, "x"), style=tarfile.PAX_FORMAT), "not a plain file"),
        (packed(("./" + "n" * 9000, tarfile.REGTYPE, "x")), "a name of 9"),
        (packed(("./a", tarfile.REGTYPE, "x" * 600_000)), "grew over 512 KiB"),
        (b"Welcome to this machine!\n" * 100, "not a tar archive"),
        (packed(("./a", tarfile.REGTYPE, "abc")) + b"\0" * (3 << 20), "more than was asked for"),
    ],
)
def test_a_stream_of_anything_else_is_refused(fetch: Fetch, tmp_path: Path, stream: bytes, says: str) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(ActionError, match=says):
        fetch(listed("a"), stream)
    assert {path.name for path in tmp_path.iterdir()} <= {*before, "in"}
    assert outside(tmp_path / "in") == []


@pytest.mark.parametrize("cut", [1, 511, 512, 600, 1024])
def test_a_stream_that_ends_early_is_a_broken_connection(fetch: Fetch, cut: int) -> None:
    with pytest.raises(ConnectionError):
        fetch(listed("a"), packed(("./a", tarfile.REGTYPE, "x" * 700))[:cut])


@pytest.mark.parametrize("listing", [b"hello\0\0", b"f x 1 644 ./a\0\0", b"f 1 1 999 ./a\0\0", b"x" * 40_000])
def test_an_invalid_listing_is_refused(fetch: Fetch, listing: bytes) -> None:
    with pytest.raises(ActionError, match=r"invalid output of find|invalid answer"):
        fetch(listing, b"")


def test_an_endless_listing_is_ended(tmp_path: Path) -> None:
    class Endless(LocalMachine):
        def popen(self, command: str) -> Process:
            return super().popen("i=0; while :; do i=$((i+1)); printf 'f 0 1 644 ./f%s\\0\\0' $i; done")

    with pytest.raises(ActionError, match="over 1,000 files would be fetched"):
        fetch_tree(Endless(), "/", KnownFolder(tmp_path), tmp_path / "in", Excluded(), Limits(files=1000))


def test_secrets_are_masked_before_a_file_is_written_and_the_files_are_named(tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "out").mkdir(parents=True)
    (work / "out/log.txt").write_text(f"the key is {SECRET}, yes\n")
    (work / "out/fine.txt").write_text("nothing\n")
    (work / f"out/{SECRET}").write_text("x")
    (work / "out/link").symlink_to(SECRET)
    into = tmp_path / "in"
    for remote in (False, True):
        if remote:
            counted = fetch_paths(LocalMachine(), str(work), Choice(["out"]), ["out"], into, Limits(), MASKER)
        else:
            counted = copy_paths(work, Choice(["out"]), ["out"], into, Limits(), MASKER)
        assert sorted(counted.masked) == ["out/link", "out/log.txt", f"out/{SECRET}"]
        assert (tmp_path / "in/out/log.txt").read_text() == "the key is ***, yes\n"
        assert sorted(path.name for path in (tmp_path / "in/out").iterdir()) == ["fine.txt", "log.txt"]


def test_many_masked_files_are_counted_and_few_are_named(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    most = limits.REFUSED_NAMED.most
    for number in range(most + 7):
        (work / f"{number:03}").write_text(SECRET)
        (work / f"{SECRET}{number:03}").write_text("x")
    counted = copy_paths(tmp_path, Choice(["work"]), ["work"], tmp_path / "in", Limits(), MASKER)
    assert len(counted.masked) == most
    assert counted.more_masked == most + 14


def test_a_folder_that_becomes_a_link_during_the_read_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, private = tmp_path / "work", tmp_path / "private"
    for folder in (work / "out/inner", private):
        folder.mkdir(parents=True)
        (folder / "file").write_text(str(folder))
    real = os.stat

    def swapped(path: str, **options: object) -> os.stat_result:
        status = real(path, **options)  # type: ignore[arg-type]
        if path == "inner":
            (work / "out/inner").rename(work / "was")
            (work / "out/inner").symlink_to(private)
        return status

    monkeypatch.setattr("pccpipe.workspace.copy.os.stat", swapped)
    with pytest.raises(ActionError, match="cannot copy"):
        copy_paths(work, Choice(["out"]), ["out"], tmp_path / "in", Limits(), MASKER)
    assert not (tmp_path / "in/out/inner/file").exists()


@pytest.mark.parametrize(
    "name", [".GIT", ".Git/config", "a/.giT", ".g\u200cit", "\ufeff.git", ".git.", ".git ", ".git::$DATA", "GIT~1"]
)
def test_a_name_that_some_disk_takes_for_git_is_refused(name: str) -> None:
    assert name_refusal(name) == "git would obey what is in it"


@pytest.mark.parametrize("name", [".gitignore", ".github/x", "git", "a.git", "git~10", ".git-blame"])
def test_a_name_that_only_resembles_git_is_allowed(name: str) -> None:
    assert not name_refusal(name)


@pytest.fixture
def one_name_disk(mocker: MockerFixture) -> None:
    """Pretend that the disk ignores the case of names."""
    mocker.patch("pccpipe.workspace.intake.takes_for_one", return_value=True)


def test_an_uploaded_file_keeps_its_name_whichever_twin_comes_first(tmp_path: Path, one_name_disk: None) -> None:
    intake = Intake(tmp_path / "made", Limits())
    assert intake.admit(Entry("A.txt", FILE, 1))
    assert intake.admit(Entry("a.txt", FILE, 1), known=True)
    assert not intake.admit(Entry("a.TXT", FILE, 1))
    assert intake.admit(Entry("OUT", FOLDER))
    assert intake.admit(Entry("OUT/new", FILE, 1))
    assert intake.admit(Entry("OUT/link", LINK, link="new"))
    assert intake.admit(Entry("OUT/deep", FOLDER))
    assert intake.admit(Entry("out", FOLDER), known=True)
    assert intake.admit(Entry("out/new", FILE, 1), known=True)
    assert not intake.admit(Entry("OUT/later", FILE, 1))
    assert not intake.admit(Entry("OUT/deep/later", FOLDER))
    assert intake.admit(Entry("out/LINK", FILE, 1))
    assert intake.wanted == ["a.txt", "out/new", "out/LINK"]
    for path in intake.wanted:
        intake.write(path, 1, [b"x"])
    counted = intake.finish()
    assert sorted(os.fspath(path.relative_to(tmp_path / "made")) for path in (tmp_path / "made").rglob("*")) == [
        "a.txt",
        "out",
        "out/LINK",
        "out/new",
    ]
    assert (counted.files, counted.bytes) == (3, 3)
    assert counted.refused == [
        "'A.txt': the disk of this machine takes its name for that of 'a.txt'",
        "'a.TXT': the disk of this machine takes its name for that of 'a.txt'",
        "'OUT': the disk of this machine takes its name for that of 'out'",
    ]


def test_a_file_renamed_to_another_case_is_fetched(tmp_path: Path, one_name_disk: None) -> None:
    intake = Intake(tmp_path / "made", Limits())
    assert intake.admit(Entry("README", FILE, 1))
    assert intake.wanted == ["README"]


def test_a_refused_file_takes_no_name(tmp_path: Path, one_name_disk: None) -> None:
    intake = Intake(tmp_path / "made", Limits())
    assert not intake.admit(Entry("Readme", FIFO))
    assert intake.admit(Entry("README", FILE, 1))


def test_many_twins_take_little_time(tmp_path: Path, one_name_disk: None) -> None:
    def bring(twins: int) -> None:
        intake = Intake(tmp_path / "made", Limits())
        for number in range(twins):
            for folder, known in (("A", False), ("a", True)):
                intake.admit(Entry(f"{folder}{number}", FOLDER), known=known)
                for name in range(5):
                    intake.admit(Entry(f"{folder}{number}/{name}", FILE, 1), known=known)
        assert len(intake.wanted) == 5 * twins
        assert intake.counted.files == 5 * twins

    assert is_linear(bring, 200)


def test_a_download_leaves_behind_the_twin_of_an_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, name in (("new", "a.TXT"), ("old", "A.txt")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(folder)
    on_disk = os.path.lexists
    monkeypatch.setattr(os.path, "lexists", lambda path: on_disk(path) or Path(path).name.casefold() == "a.txt")
    counted = Counted(files=1)
    merge(tmp_path / "new", tmp_path / "old", counted)
    assert (counted.files, counted.refused) == (0, [f"'a.TXT': {TWIN}"])
    assert [(path.name, path.read_text()) for path in (tmp_path / "old").iterdir()] == [("A.txt", "old")]
