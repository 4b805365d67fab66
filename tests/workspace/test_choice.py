"""A download takes the files that its names and patterns choose, from a VM and locally alike."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pccpipe import limits
from pccpipe.cancel import Cancel, Halt
from pccpipe.errors import ActionError, Halted
from pccpipe.limits.limit import Limit, Unit
from pccpipe.machine.base import Process
from pccpipe.machine.local import LocalMachine
from pccpipe.secrets.mask import Masker
from pccpipe.workspace.choice import Choice, Choosing
from pccpipe.workspace.copy import copy_paths
from pccpipe.workspace.entry import Entry
from pccpipe.workspace.fetch import fetch_paths
from pccpipe.workspace.intake import Counted, Intake, Limits

MASKER = Masker([])
TREE = (
    "a.whl",
    "report.xml",
    "dist/b.whl",
    "dist/b.whl.sig",
    "dist/deep/er/c.whl",
    "dist/.hidden.whl",
    "dist/tmp/d.whl",
    "build-1/x",
    "build-2/x",
    "build-x",
    "x[1].txt",
    "x1.txt",
    "we*ird",
    "two\nlines.log",
    "latin-\udce4.log",
    ".git/e.whl",
    ".system/runs/r/f.whl",
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "work"
    for name in TREE:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name.encode("utf-8", "surrogateescape").decode("latin-1"))
    return root


def taken(root: Path) -> set[str]:
    return {str(each.relative_to(root)) for each in root.rglob("*") if not each.is_dir() or each.is_symlink()}


def both(tree: Path, choice: Choice, halt: Halt | None = None) -> tuple[set[str], Counted]:
    """Return what comes from a machine, which must be the same as from a folder."""
    found = []
    for remote in (True, False):
        into = tree.parent / f"in-{remote}"
        if remote:
            counted = fetch_paths(LocalMachine(), str(tree), choice, choice.roots, into, Limits(), MASKER)
        else:
            counted = copy_paths(tree, choice, choice.roots, into, Limits(), MASKER, halt)
        found.append((taken(into), counted.files, counted.found, counted.brought))
    assert found[0] == found[1]
    assert found[0][1] == len(found[0][0])
    return found[0][0], counted


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["dist/*.whl"], {"dist/b.whl", "dist/.hidden.whl"}),
        (["*.whl"], {"a.whl"}),
        (["**/*.whl"], {"a.whl", "dist/b.whl", "dist/.hidden.whl", "dist/deep/er/c.whl", "dist/tmp/d.whl"}),
        (["dist/**/*.whl"], {"dist/b.whl", "dist/.hidden.whl", "dist/deep/er/c.whl", "dist/tmp/d.whl"}),
        (["dist/**/er"], {"dist/deep/er/c.whl"}),
        (["dist/d??p"], {"dist/deep/er/c.whl"}),
        (["build-*"], {"build-1/x", "build-2/x", "build-x"}),
        (["build-*/"], {"build-1/x", "build-2/x"}),
        (["build-[12]/x", "./report.xml"], {"build-1/x", "build-2/x", "report.xml"}),
        (["build-[!1]"], {"build-2/x", "build-x"}),
        (["x[1].txt"], {"x[1].txt", "x1.txt"}),
        (["x[[]1].txt"], {"x[1].txt"}),
        (["we\\*ird"], {"we*ird"}),
        (["we*ird"], {"we*ird"}),
        (["*.log"], {"two\nlines.log", "latin-\udce4.log"}),
        (["**"], {*TREE} - {".git/e.whl", ".system/runs/r/f.whl"}),
        ([".system/**/f.whl"], {".system/runs/r/f.whl"}),
        (["dist", "dist/*.whl", "*.xml"], {name for name in TREE if name.startswith("dist")} | {"report.xml"}),
    ],
)
def test_patterns_choose_what_users_of_git_expect(tree: Path, paths: list[str], names: set[str]) -> None:
    assert both(tree, Choice(paths))[0] == names


def test_what_exclude_names_stays(tree: Path) -> None:
    names, counted = both(tree, Choice(["dist", "*.xml"], ["*.sig", "dist/tmp/", "/report.xml"]))
    assert names == {"dist/b.whl", "dist/.hidden.whl", "dist/deep/er/c.whl"}
    assert counted.found == {0}


def test_each_path_that_matches_or_brings_nothing_is_counted(tree: Path) -> None:
    (tree / "empty").mkdir()
    (tree / "out").symlink_to("/etc")
    _, counted = both(tree, Choice(["none*", "empty", "*.whl", "o?t", "report.xml", "out/*"]))
    assert counted.found == {1, 2, 3, 4}
    assert counted.brought == {2, 4}
    assert [line.partition(":")[0] for line in counted.refused] == ["'out'"]


def test_in_an_older_record_each_path_is_a_name(tree: Path) -> None:
    choice = Choice(["dist/*.whl", "x[1].txt", "we*ird"], by_name=True)
    names = both_existing(tree, choice)
    assert names == {"x[1].txt", "we*ird"}


def both_existing(tree: Path, choice: Choice) -> set[str]:
    roots = [root for root in choice.roots if (tree / root).exists()]
    copy_paths(tree, choice, roots, tree.parent / "in", Limits(), MASKER)
    return taken(tree.parent / "in")


class Hostile(LocalMachine):
    """A machine that lists whatever it likes, and packs what it is asked for."""

    def __init__(self, listing: bytes) -> None:
        super().__init__()
        self._listing = listing

    def popen(self, command: str) -> Process:
        if "find" in command.partition(";")[2]:
            file = Path(os.environ["PCC_TEST_LISTING"])
            file.write_bytes(self._listing)
            return super().popen(f"cat {shlex.quote(str(file))}")
        return super().popen(command)


def entry(kind: str, path: str) -> bytes:
    return f"{kind} 1 1 644 ./{path}".encode("utf-8", "surrogateescape") + b"\0\0"


def test_a_listing_with_hostile_names_makes_nothing_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PCC_TEST_LISTING", str(tmp_path / "listing"))
    listing = b"".join(
        (
            entry("f", "dist/../../evil/a.whl"),
            *(entry("d", path) for path in ("dist", "dist/..", "dist/../..", "dist/.git", "../dist", "dist//x")),
            *(
                entry("f", f"{path}/a.whl")
                for path in ("dist/../..", "dist/..", "dist/.git", "../dist", "dist//x", "/etc")
            ),
            entry("f", f"dist/{'n' * 300}.whl"),
            entry("f", f"dist/{'d/' * 101}a.whl"),
            entry("f", "dist/without/its/folder.whl"),
            entry("c", "dist/device.whl"),
        )
    )
    work, inside = tmp_path / "w", tmp_path / "1/2/3/in"
    work.mkdir()
    inside.parent.mkdir(parents=True)
    before = taken(tmp_path)
    for paths in (["dist/**/*.whl"], ["**/*.whl"], ["**"]):
        choice = Choice(paths)
        counted = fetch_paths(Hostile(listing), str(work), choice, choice.roots, inside, Limits(), MASKER)
        assert counted.files == 0
        assert not counted.brought
        assert len(counted.refused) >= 3
        assert taken(tmp_path) - before <= {"listing"}
        assert not [path for path in tmp_path.rglob("evil") if inside not in path.parents]


def listed(paths: list[str], entries: list[Entry], folder: Path) -> Choosing:
    choosing = Choosing(Choice(paths), Intake(folder / "in", Limits(), MASKER))
    for each in entries:
        choosing.matching(each)
    return choosing


def work_of(choosing: Choosing) -> int:
    return choosing._work


@pytest.mark.parametrize("pattern", ["**/**/**/*a*b*c", "**/a/**/a/**/a/**/b", "a*a*a*a*a*a*a*a*b"])
def test_the_work_of_a_pattern_grows_with_a_path_no_faster_than_its_length(tmp_path: Path, pattern: str) -> None:
    def work(length: int) -> int:
        paths = [Entry("/".join(["a"] * length), 0o100644), Entry("a" * length, 0o100644)]
        return work_of(listed([pattern], paths, tmp_path))

    # Each folder above the path is decided as well, so the square of its depth (at most 100) is the bound.
    assert work(80) <= 5 * work(40)


def test_too_much_work_ends_the_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DOWNLOAD_WORK", Limit("the work", 1000, Unit.COUNT, "A test."))
    files = [Entry(f"f{number}", 0o100644) for number in range(2000)]
    with pytest.raises(ActionError, match="the work exceeds the limit of 1,000"):
        listed(["*.whl"], files, tmp_path)
    listed(["plain"], files, tmp_path)


def test_a_folder_of_too_many_files_ends_the_copy(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TREE_ENTRIES", Limit("the files", 10, Unit.COUNT, "A test."))
    with pytest.raises(ActionError, match="the files exceeds the limit of 10"):
        copy_paths(tree, Choice(["**/*.none"]), [""], tree.parent / "in", Limits(), MASKER)


@pytest.fixture
def removed(tmp_path: Path) -> Iterator[Path]:
    """Give a folder, and remove it even if it is too deep for pytest."""
    yield tmp_path
    subprocess.run(["rm", "-rf", tmp_path], check=True)


def test_a_deep_tree_is_refused_where_it_becomes_too_deep(removed: Path) -> None:
    work, depth = removed / "work", 1500
    work.mkdir()
    fds = [os.open(work, os.O_RDONLY)]
    for _ in range(depth):
        os.mkdir("d", dir_fd=fds[-1])
        fds.append(os.open("d", os.O_RDONLY, dir_fd=fds[-1]))
        os.close(fds.pop(-2))
    os.close(fds[-1])
    (work / "d/d/a.whl").write_text("x")
    counted = copy_paths(work, Choice(["**/*.whl"]), [""], removed / "in", Limits(), MASKER)
    assert taken(removed / "in") == {"d/d/a.whl"}
    assert len(counted.refused) == 1
    assert "folders deep" in counted.refused[0]


def test_a_cancel_ends_a_local_copy(tree: Path) -> None:
    cancel = Cancel()
    cancel.request()
    with pytest.raises(Halted):
        copy_paths(tree, Choice(["**"]), [""], tree.parent / "in", Limits(), MASKER, Halt(cancel))


@pytest.mark.parametrize("path", ["/etc/*", "../*", "a/../*", "", ".", "a\0*"])
def test_a_pattern_out_of_the_workspace_is_refused(path: str) -> None:
    with pytest.raises(ActionError, match="not a path in the workspace"):
        Choice([path])


def test_too_many_paths_and_too_long_patterns_are_refused() -> None:
    with pytest.raises(ActionError, match="exceeds the limit of 1,000"):
        Choice([f"a{number}" for number in range(1001)])
    with pytest.raises(ActionError, match="a pattern of a download exceeds the limit"):
        Choice(["*" + "a" * 1001])


def test_an_open_bracket_is_a_letter(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "a[1.txt").write_text("x")
    assert both(work, Choice(["a[1.txt"]))[0] == {"a[1.txt"}
