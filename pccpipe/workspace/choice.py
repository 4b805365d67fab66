"""Chooses the files of a download, by name and by pattern, from a tree that an untrusted place lists.

The patterns are those of a .gitignore in the top folder of the workspace: `gitignore.py` matches them in bounded time.
A folder that is chosen is chosen with all that is in it.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from msgspec import Struct

from pccpipe import limits
from pccpipe.errors import ActionError, LimitExceeded
from pccpipe.layout import SYSTEM
from pccpipe.workspace.allowed import name_refusal
from pccpipe.workspace.entry import Entry, EntryMemory
from pccpipe.workspace.exclude import Excluded
from pccpipe.workspace.gitignore import Patterns, Tree
from pccpipe.workspace.intake import Intake
from pccpipe.workspace.names import composed

_OWN = frozenset({".git", SYSTEM})
"""Folders that no wildcard enters: a path must name them."""
_SPECIAL = re.compile(r"[*?\[\\]")


class ChosenPath(Struct, frozen=True):
    """One path of a download: a name, or a pattern."""

    text: str
    root: str
    """The file or folder that must be listed to find it; empty for the whole workspace."""
    patterns: Patterns | None = None
    """None for a plain name."""


class Choice:
    """The files that a download wants.

    Args:
        paths: relative names of files and folders, or patterns.
        exclude: patterns as in .gitignore of what to leave out.
        by_name: take each path as a name, whatever letters it has.

    Raises ActionError for a path out of the workspace, and for too many or too long ones.
    """

    def __init__(self, paths: Sequence[str], exclude: Sequence[str] = (), *, by_name: bool = False) -> None:
        if len(paths) > limits.DOWNLOAD_PATHS.most:
            raise ActionError(limits.DOWNLOAD_PATHS.exceeded(), code=limits.DOWNLOAD_PATHS.code)
        made = [_chosen(path, by_name=by_name) for path in paths]
        self.paths = tuple({path.text: path for path in made}.values())
        self.excluded = Excluded.only(exclude)

    @property
    def roots(self) -> tuple[str, ...]:
        """The files and folders that must be listed."""
        return tuple(dict.fromkeys(path.root for path in self.paths))


class Choosing:
    """Chooses from one listing, for one intake. `Intake.counted` has the paths that were found."""

    def __init__(self, choice: Choice, intake: Intake) -> None:
        self._choice = choice
        self._intake = intake
        self._counted = intake.counted
        self._names: dict[str, list[int]] = {}
        self._patterns: list[tuple[int, str, Tree]] = []
        for number, path in enumerate(choice.paths):
            # Also a pattern may be the very name of a file, as for a shell.
            self._names.setdefault(composed(path.text), []).append(number)
            if path.patterns is not None:
                within = f"{composed(path.root)}/" if path.root else ""
                self._patterns.append((number, within, Tree({"": path.patterns})))
        self._held: dict[str, Entry] = {}
        """Folders that are not chosen, and have no chosen file so far."""
        self._memory = EntryMemory()
        self._opened: set[str] = set()
        self._listed = 0
        self._work = 0

    def matching(self, entry: Entry) -> list[int]:
        """Return the numbers of the paths that choose it; a pattern that brought a file may be left out.

        Raises ActionError if the tree has too many files, or the patterns take too much work.
        """
        self._listed += 1
        if self._listed > limits.TREE_ENTRIES.most:
            raise ActionError(limits.TREE_ENTRIES.exceeded(), code=limits.TREE_ENTRIES.code)
        if len(entry.path) > limits.TREE_NAME.most and (why := name_refusal(entry.path)):
            self._intake.refuse(entry, why)  # no pattern is tried on an endless name
            return []
        path = composed(entry.path)
        found: list[int] = []
        above = path
        while above and self._names:
            found += self._names.get(above, ())
            above = above.rpartition("/")[0]
        is_folder = stat.S_ISDIR(entry.mode)
        for number, within, tree in self._patterns:
            if (found and number in self._counted.brought) or number in found or not path.startswith(within):
                continue
            if not _OWN.isdisjoint(path[len(within) :].split("/")):
                continue
            before = tree.steps
            if tree.ignores(path, is_folder=is_folder):
                found.append(number)
            self._work += 1 + tree.steps - before
        if self._work > limits.DOWNLOAD_WORK.most:
            raise ActionError(limits.DOWNLOAD_WORK.exceeded(), code=limits.DOWNLOAD_WORK.code)
        self._counted.found.update(found)
        return found

    def is_closed(self, entry: Entry) -> bool:
        """Say whether nothing in a folder that is not chosen could be taken; a refused folder is named."""
        name = entry.path.rpartition("/")[2]
        if name in _OWN and entry.path not in self._choice.roots:
            return True
        why = name_refusal(entry.path)
        if why:
            self._intake.refuse(entry, why)
        return bool(why)

    def hold(self, entry: Entry) -> None:
        """Remember a folder that is not chosen: a file in it may be. Raises ActionError for too many."""
        if stat.S_ISDIR(entry.mode):
            self._memory.add(entry)
            self._held[entry.path] = entry

    def admit(self, entry: Entry, numbers: Sequence[int]) -> bool:
        """Offer a chosen entry to the intake, and the folders around it first; return whether the tree may have it."""
        names = entry.path.split("/")
        root = self._choice.paths[numbers[0]].root
        asked = "/".join(names[: root.count("/") + 1]) if root else ""
        if asked and asked not in self._opened:
            self._opened.add(asked)
            self._intake.make_parents(asked)
        for folder in self._held_above(names):
            self._intake.admit(folder)
        admitted = self._intake.admit(entry)
        if admitted and not stat.S_ISDIR(entry.mode):
            self._counted.brought.update(numbers)
        return admitted

    def _held_above(self, names: Sequence[str]) -> Iterator[Entry]:
        """Yield the folders around a path that were held, the outermost first."""
        for count in range(1, len(names) if self._held else 0):
            if folder := self._held.pop("/".join(names[:count]), None):
                yield folder


def _chosen(path: str, *, by_name: bool) -> ChosenPath:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise ActionError(f"{path!r} is not a path in the workspace", "give a relative path without `..`")
    text = str(PurePosixPath(path))
    special = next((index for index, part in enumerate(parts) if _SPECIAL.search(part)), None)
    if special is None or by_name:
        return ChosenPath(text, text)
    try:
        # Without the slash in front, a pattern without folders would match in each folder.
        patterns = Patterns([f"/{text}{'/' if path.endswith('/') else ''}"])
    except LimitExceeded as error:
        raise ActionError(error.limit.exceeded("a pattern of a download"), code=error.code) from None
    return ChosenPath(text, "/".join(parts[:special]), patterns)
