"""Names and links that mean something else on another disk or through another link, and their limits."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from pccpipe import limits
from pccpipe.machine.local import LocalMachine
from pccpipe.secrets.mask import Masker
from pccpipe.workspace.diff import make_diff
from pccpipe.workspace.entry import Entry
from pccpipe.workspace.exclude import Excluded
from pccpipe.workspace.fetch import fetch_tree
from pccpipe.workspace.intake import Intake, Limits
from pccpipe.workspace.links import FOLLOWED, LinkResolver
from pccpipe.workspace.names import one_name, takes_for_one, twins
from pccpipe.workspace.pack import Pack
from pccpipe.workspace.send import send
from tests.stall import measured
from tests.workspace.halts import NeverHalted

NEVER = NeverHalted()
GIT = [".git", ".GIT", ".Git", ".g\u200cit", "\ufeff.git", ".git.", ".git ", ".git::$DATA", "GIT~1"]
FILE, FOLDER, LINK = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777


def made(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return folder


def packed(folder: Path, root: Path, *patterns: str) -> Pack:
    pack = Pack(folder)
    pack.store(root, Excluded(patterns), NEVER, full=True)
    return pack


@pytest.mark.parametrize("patterns", [(), ("!.git", "!.GIT", "!*")])
def test_a_name_that_some_disk_takes_for_git_is_not_uploaded(tmp_path: Path, patterns: tuple[str, ...]) -> None:
    user = made(tmp_path / "user", "a", *(f"{name}/config" for name in GIT), *(f"deep/{name}" for name in GIT[1:]))
    pack = packed(tmp_path / "sent", user, *patterns)
    remote = tmp_path / "remote"
    send(LocalMachine(), pack, str(remote), Excluded(patterns))
    assert sorted(pack.entries) == ["a", "deep"]
    assert sorted(path.name for path in remote.rglob("*")) == ["a", "deep"]


def test_a_name_that_some_disk_takes_for_git_is_in_no_patch(tmp_path: Path) -> None:
    pack = packed(tmp_path / "sent", made(tmp_path / "user", "a"))
    now = made(tmp_path / "now", "a", "b", *(f"{name}/hooks/post-checkout" for name in GIT), "d/.GIT")
    diff = make_diff(pack, now, Masker(()), Limits(), into=tmp_path / "patch")
    assert diff.changed.files == 1
    assert b"post-checkout" not in (tmp_path / "patch").read_bytes()
    assert len(diff.changed.refused) == len(GIT)
    assert all(words.endswith("git would obey what is in it") for words in diff.changed.refused)


def fetched(tmp_path: Path) -> tuple[set[str], list[str]]:
    """Fetch the folder `vm`, of which `known` is the earlier state; return the links and the refusals."""
    known = packed(tmp_path / "sent", tmp_path / "known")
    counted = fetch_tree(LocalMachine(), str(tmp_path / "vm"), known, tmp_path / "in", Excluded(), Limits())
    came = {str(path.relative_to(tmp_path / "in")) for path in (tmp_path / "in").rglob("*") if path.is_symlink()}
    assert counted.files == sum(1 for path in (tmp_path / "in").rglob("*") if path.is_symlink() or path.is_file())
    return came, counted.refused


def test_no_link_is_fetched_that_leads_out_through_another_one(tmp_path: Path) -> None:
    made(tmp_path / "outside", "secret")
    for side in ("known", "vm"):
        made(tmp_path / side, "d/file")
        (tmp_path / side / "own").symlink_to("../outside")
        (tmp_path / side / "d/absolute").symlink_to("/etc")
    new = {
        "x": "own/secret",
        "d/y": "../own",
        "d/z": "../x",
        "d/a": "absolute/passwd",
        "d/later": "none",
        "fine": "d/file",
        "d/fine": "../fine",
        "circle": "circle",
    }
    for name, text in new.items():
        (tmp_path / "vm" / name).symlink_to(text)
    came, refused = fetched(tmp_path)
    assert came == {"own", "d/absolute", "d/later", "fine", "d/fine", "circle"}
    assert sorted(words.partition(":")[0] for words in refused) == ["'d/a'", "'d/y'", "'d/z'", "'x'"]
    assert all("out of the tree through another link" in words for words in refused)


def test_all_links_are_fetched_if_none_leads_out(tmp_path: Path) -> None:
    for side in ("known", "vm"):
        made(tmp_path / side, "d/file")
        (tmp_path / side / "own").symlink_to("d")
    (tmp_path / "vm/x").symlink_to("own/file")
    assert fetched(tmp_path) == ({"own", "x"}, [])


def test_a_long_chain_and_a_cycle_end() -> None:
    chain = {f"l{number}": f"l{number + 1}" for number in range(200)} | {"l200": "/etc"}
    # From either end, and also those that the kernel would not follow.
    assert all(LinkResolver(chain).leads_out(f"l{number}") for number in (0, 100, 200))
    resolver = LinkResolver({"a": "b/x", "b": "a", "c": "d/../..", "d": "."})
    assert [resolver.leads_out(name) for name in "abcd"] == [False, False, True, False]
    assert FOLLOWED == 40


def test_many_links_take_bounded_work(monkeypatch: pytest.MonkeyPatch) -> None:
    links = {f"l{number}": "/".join(["a"] * 900) for number in range(100)}
    assert not LinkResolver(links).leads_out("l1")
    monkeypatch.setattr(limits, "LINK_WORK", limits.Limit("x", 10_000, limits.Unit.COUNT, "y"))
    assert LinkResolver(links).leads_out("l1")


def test_a_name_that_the_disk_already_has_is_refused(tmp_path: Path) -> None:
    """On a disk that ignores case, `readme` exists as soon as README was fetched; here the test makes it."""
    intake = Intake(tmp_path / "in", Limits())
    entries = [Entry("File", FILE, 1), Entry("Link", LINK, link="a"), Entry("a", FILE, 1)]
    assert all(intake.admit(entry) for entry in entries)
    for name in ("File", "Link", "Folder"):
        made(tmp_path / "in", name)
    assert not intake.admit(Entry("Folder", FOLDER))
    assert not intake.admit(Entry("Folder/inner", FILE, 1))
    assert intake.write("File", 1, iter([b"y"]))
    assert intake.write("a", 1, iter([b"z"]))
    counted = intake.finish()
    assert counted.files == 1
    assert [words.partition(":")[0] for words in counted.refused] == ["'Folder'", "'File'", "'Link'"]
    assert (tmp_path / "in/File").read_text() == "x"


def test_a_requested_folder_whose_name_the_disk_already_has_is_refused(tmp_path: Path) -> None:
    intake = Intake(tmp_path / "in", Limits())
    made(tmp_path / "in", "OUT")
    intake.make_parents("OUT/deep/file")
    assert not intake.admit(Entry("OUT/deep/file", FILE, 1))
    assert [words.partition(":")[0] for words in intake.finish().refused] == ["'OUT'"]


LONG = """
from pathlib import Path
import shlex
import tempfile
from pccpipe.machine.base import Done
from pccpipe.machine.local import LocalMachine
from pccpipe.workspace.exclude import Excluded
from pccpipe.workspace.fetch import fetch_tree
from pccpipe.workspace.intake import Limits
from pccpipe.workspace.pack import Pack
from pccpipe.workspace.send import send
import pccpipe.workspace.diff, pccpipe.secrets.mask

class Lists(LocalMachine):
    def popen(self, command):
        if "find" not in command:
            return super().popen("cat >/dev/null")
        text = "f 0 1 644 ./" + LETTER * LENGTH
        program = '$n = 0; while ($n++ < 1200000) { print "' + text + '$n\\\\0\\\\0" }'
        return super().popen("exec perl -e " + shlex.quote(program))

    def run(self, script, timeout=60.0):
        return Done(0, b"x", b"")

folder = Path(tempfile.mkdtemp())
(folder / "user").mkdir()
pack = Pack(folder / "pack")
class Never:
    requested = False
    def check(self): pass
pack.store(folder / "user", Excluded(), Never(), full=True)
"""
FETCH = "fetch_tree(Lists(), '/w', pack, folder / 'in', Excluded(), Limits())"
SEND = "send(Lists(), pack, '/w', Excluded())"


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("work", "length", "letter"), [(SEND, 1, "a"), (FETCH, 1900, "a"), (FETCH, 60, "\U0001f4a9")], ids=["1", "2", "3"]
)
def test_a_hostile_listing_takes_little_memory(work: str, length: int, letter: str) -> None:
    setup = f"LENGTH, LETTER = {length}, {letter!r}\n{LONG}"
    _, memory, said = measured(setup, work)
    assert "over 200,000 files would be fetched" in said or "exceeds the limit" in said
    assert memory < limits.TREE_NAMES.most + limits.MARGIN


def test_a_disk_that_knows_case_keeps_names_apart(tmp_path: Path) -> None:
    for name in ("copy", "COPY", "1"):
        (tmp_path / name).mkdir()
        assert not takes_for_one(tmp_path / name)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Readme", "README"), ("caf\u00e9", "cafe\u0301"), ("stra\u00dfe", "STRASSE"), ("\ufb01x", "fix")],
)
def test_names_that_differ_only_in_case_or_form_are_twins(one: str, other: str) -> None:
    assert one_name(one) == one_name(other)
    assert twins([one, "else", other, f"{one}/x", "\udcff"]) == {one, other}
