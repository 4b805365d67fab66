"""Patterns of .gitignore match as in git, and in bounded time."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from pccpipe import limits
from pccpipe.errors import ActionError
from pccpipe.workspace.exclude import Excluded, Ignored
from pccpipe.workspace.gitignore import Patterns, Tree
from tests.stall import measured

# Parts of patterns and names: each is special to git in some place.
PIECES = (
    *("a", "b", "A", ".", "*", "**", "***", "?", "/", "/", "\\", "\\*", "\\ ", "-", "!", "#", " ", "\r", "[", "]"),
    *("[ab]", "[!a]", "[^b]", "[a-c]", "[]a]", "[b-a]", "[a-]", "[a\\]b]", "[\\a]", "[a/b]", "[[:alpha:]]"),
)
NAMES = ("a", "b", "A", "ab", "ba", "aab", "a b", "a.b", "-", "*", "]", "!a", "#", "[", "a ", "c", "\\")


def pattern(dice: random.Random) -> str:
    made = "".join(dice.choice(PIECES) for _ in range(dice.randint(1, 6)))
    return ("!" if dice.random() < 0.25 else "") + made + ("/" if dice.random() < 0.2 else "")


def a_tree(root: Path, dice: random.Random) -> None:
    for _ in range(40):
        path = root.joinpath(*(dice.choice(NAMES) for _ in range(dice.randint(1, 4))))
        if not any(parent.is_file() for parent in path.parents) and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


@pytest.mark.parametrize("seed", range(40))
def test_patterns_match_as_in_git(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    a_tree(tmp_path, dice)
    folders = ["", *sorted(f"{path.relative_to(tmp_path)}/" for path in tmp_path.rglob("*") if path.is_dir())]
    folders = [folder for folder in folders if not folder.startswith(".git/")]
    files = {folder: [pattern(dice) for _ in range(3)] for folder in {"", dice.choice(folders)}}
    for folder, lines in files.items():
        (tmp_path / folder / ".gitignore").write_bytes("\n".join(lines).encode())
    paths = sorted(path for path in tmp_path.rglob("*") if path.relative_to(tmp_path).parts[0] != ".git")
    names = [str(path.relative_to(tmp_path)) for path in paths]
    command = ["git", "-C", str(tmp_path), "check-ignore", "--no-index", "-z", "--stdin"]
    said = subprocess.run(command, input="\0".join(names).encode(), capture_output=True, check=False).stdout
    tree = Tree({folder: Patterns(lines) for folder, lines in files.items()})
    ignored = {name for name, path in zip(names, paths, strict=True) if tree.ignores(name, is_folder=path.is_dir())}
    assert ignored == set(said.decode().split("\0")) - {""}, files


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("*a*a*a*a*b", "a" * 250),
        ("*a" * 490 + "b", "a" * 255),
        ("[a-z]*[a-z]*[a-z]*[a-z]*[a-z]*[A-Z]", "a" * 255),
        ("**/a" * 240 + "/b", "/".join(["a"] * 100)),
        ("a/**/*a*a*a*b/**/*a*a*b/**/b", "/".join(["a" * 250] * 7)),
        ("?" * 900 + "*" * 90, "a" * 255),
    ],
)
def test_no_pattern_blocks_the_interpreter(line: str, path: str) -> None:
    setup = "from pccpipe.workspace.gitignore import Patterns, Tree"
    longest, memory, said = measured(setup, f'Tree({{"": Patterns([{line!r}])}}).ignores({path!r}, is_folder=False)')
    assert not said
    assert longest < limits.PAUSE
    assert memory < limits.MARGIN


def ignored(content: bytes) -> Ignored:
    return Ignored({".gitignore": len(content)}, lambda _: content)


@pytest.mark.parametrize(
    ("content", "limit"),
    [
        (b"#" * (limits.IGNORE_FILES.most + 1), limits.IGNORE_FILES),
        (b"a\n" * (limits.IGNORE_PATTERNS.most + 1), limits.IGNORE_PATTERNS),
        (b"a" * (limits.IGNORE_PATTERN.most + 1), limits.IGNORE_PATTERN),
    ],
)
def test_too_many_patterns_are_refused_in_one_sentence(content: bytes, limit: limits.Limit) -> None:
    with pytest.raises(ActionError) as raised:
        ignored(content)
    assert str(raised.value) == limit.exceeded()
    assert raised.value.code is limit.code


def test_many_patterns_on_many_files_end_at_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "IGNORE_WORK", limits.Limit("work", 10_000, limits.Unit.COUNT, ""))
    ask = ignored(b"*a\n" * 1000)
    for number in range(10):
        assert not ask(f"{number}")
    with pytest.raises(ActionError, match="work exceeds the limit of 10,000"):
        ask("b")


def test_exclude_patterns_have_limits_too() -> None:
    with pytest.raises(ActionError, match="the length of a pattern"):
        Excluded(["a" * 2000]).name("a", is_folder=False)


def test_an_inner_gitignore_can_include_what_an_outer_one_ignores() -> None:
    tree = Tree({"": Patterns(["*.log"]), "kept/": Patterns(["!*.log"])})
    assert tree.ignores("a.log", is_folder=False)
    assert not tree.ignores("kept/a.log", is_folder=False)


def test_names_that_are_not_text_are_matched() -> None:
    text = b"*.\xff\n".decode("utf-8", "surrogateescape")
    assert Tree({"": Patterns(text.split("\n"))}).ignores("a.\udcff", is_folder=False)
