"""A tree that is made of what comes from a place that is not trusted: judged by name and kind, counted, and held to
limits before anything of it is written.

Made in a new folder that nobody else writes to, links last: so nothing is ever written or read through one.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Protocol

from msgspec import Struct, field

from pccpipe import limits as all_limits
from pccpipe.errors import ActionError
from pccpipe.secrets.mask import Masker
from pccpipe.workspace.links import Ways
from pccpipe.workspace.names import is_git, one_name, takes_for_one


class Limits(Struct, frozen=True):
    """How much may come home. Sizes in bytes, by what a file says it has: a sparse one counts whole."""

    files: int = all_limits.FETCHED_FILES.most
    """Folders and links count as well."""
    bytes: int = all_limits.FETCHED_BYTES.most
    file: int = all_limits.FETCHED_FILE.most


class Counted(Struct):
    """What was copied or brought."""

    files: int = 0
    bytes: int = 0
    refused: list[str] = field(default_factory=list)
    """Names that were not taken, each with its reason."""
    more_refused: int = 0
    masked: list[str] = field(default_factory=list)
    """Files with a secret in them, or in their name."""
    more_masked: int = 0

    def refuse(self, path: str, why: str) -> None:
        """Note that a file is not taken."""
        if len(self.refused) < all_limits.REFUSED_NAMED.most:
            self.refused.append(f"{shown(path)}: {why}")
        else:
            self.more_refused += 1

    def mask(self, path: str) -> None:
        """Note that a secret was in a file, or in its name."""
        if len(self.masked) < all_limits.REFUSED_NAMED.most:
            self.masked.append(path)
        else:
            self.more_masked += 1

    @property
    def told(self) -> tuple[str, ...]:
        """The refused ones, and how many more there were."""
        return (*self.refused, *([f"and {self.more_refused} more"] if self.more_refused else []))


class Entry(Struct, frozen=True, gc=False):
    """One name of a tree, as the place that has it describes it."""

    path: str
    """Relative, without `./`; bytes that are no UTF-8 as surrogates."""
    mode: int
    """As `st_mode`; 0 for a kind that is unknown."""
    size: int = 0
    mtime_ns: int = 0
    link: str = ""
    """What a symbolic link says."""
    is_locked: bool = False
    """The place that has it may not read it, or not go into it."""


class Names:
    """Counts what the names of a tree take in memory."""

    def __init__(self) -> None:
        self._size = 0

    def add(self, entry: Entry) -> None:
        """Raises ActionError when they are too much altogether."""
        self._size += sys.getsizeof(entry.path) + (sys.getsizeof(entry.link) if entry.link else 0)
        if self._size > all_limits.TREE_NAMES.most:
            raise ActionError(all_limits.TREE_NAMES.exceeded(), code=all_limits.TREE_NAMES.code)


class KnownTree(Protocol):
    """A tree that is here already."""

    @property
    def entries(self) -> Mapping[str, Entry]: ...

    def put(self, path: str, target: Path) -> None:
        """Make a file of it, with its time and mode. Raises OSError."""
        ...


class Intake:
    """Makes `target`, anew. First `admit` each entry, folders before what is in them; then `write` the files of those
    that were, each once; then `finish`.

    Args:
        masker: takes secrets out of files before they are written; None leaves them as they are.
    """

    def __init__(self, target: Path, limits: Limits, masker: Masker | None = None) -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True, mode=0o700)
        self.counted = Counted()
        self._target = target
        self._limits = limits
        self._masker = masker
        self._seen: set[str] = set()
        self._own_links: set[str] = set()
        self._names = Names()
        self._folders: dict[str, Entry] = {"": Entry("", stat.S_IFDIR | 0o755)}
        self._links: dict[str, str] = {}
        self._files: dict[str, Entry] = {}
        self._announced = 0
        self._written = 0
        self._owners: dict[str, str] | None = {} if takes_for_one(target) else None
        """Who has a name, on a disk on which others may want the same."""
        self._known: set[str] = set()
        self._out: set[str] = set()
        """Folders that were admitted before one that was sent from here wanted their name."""

    def root(self, path: str) -> None:
        """Make the folders that lead to `path`, which was asked for by name."""
        for parent in reversed(PurePosixPath(path).parents):
            name = "" if str(parent) == "." else str(parent)
            if name not in self._folders and not self._made_folder(Entry(name, stat.S_IFDIR | 0o755)):
                return

    def admit(self, entry: Entry, *, own_link: bool = False, known: bool = False) -> bool:
        """Whether it may come. Folders are made at once, links by `finish`.

        Args:
            own_link: a link that was sent from here and is the same as it was: it may lead where its owner likes.
            known: something of that path was sent from here: its name is not for another that the disk takes for it.

        Raises ActionError when it is too much altogether.
        """
        parent = entry.path.rpartition("/")[0]
        if parent not in self._folders or entry.path in self._seen or self._is_out(parent):
            return False  # what is in a folder that did not come does not either
        self._seen.add(entry.path)
        self._names.add(entry)
        if entry.path in self._folders:  # one that led to what was asked for
            return stat.S_ISDIR(entry.mode)
        if len(self._seen) > self._limits.files:
            raise ActionError(
                f"over {self._limits.files:,} files would come home, which is the limit",
                "exclude what need not come (`exclude:` of the upload), or remove it in the step that makes it",
            )
        why = self._refusal(entry, own_link=own_link) or self._taken(entry.path, known=known)
        if why:
            self.refuse(entry, why)
            return False
        if stat.S_ISDIR(entry.mode):
            return self._made_folder(entry)
        self.counted.files += 1
        if stat.S_ISLNK(entry.mode):
            self._links[entry.path] = entry.link
            if own_link:
                self._own_links.add(entry.path)
            return True
        self._files[entry.path] = entry
        self._announced = self._within(self._announced + entry.size)
        return True

    def _taken(self, path: str, *, known: bool) -> str:
        """Say who else has the name here; "" if nobody has."""
        if self._owners is None:
            return ""
        name = one_name(path)
        owner = self._owners.setdefault(name, path)
        if owner != path and not self._is_out(owner):
            if owner in self._known or not known:
                return f"the disk here takes its name for that of {shown(owner)}"
            self._turn_out(owner)
            self.counted.refuse(owner, f"the disk here takes its name for that of {shown(path)}")
        self._owners[name] = path
        if known:
            self._known.add(path)
        return ""

    def _turn_out(self, path: str) -> None:
        """Take back that it was admitted; what is in a folder goes when all are there, at once."""
        if path in self._folders:
            self._out.add(path)
            shutil.rmtree(self._target / path, ignore_errors=True)
            return
        self._files.pop(path, None)
        self._links.pop(path, None)
        self.counted.files -= 1

    def _is_out(self, path: str) -> bool:
        return bool(self._out) and any(path[:end] in self._out for end in _ends(path))

    def _drop_out(self) -> None:
        """Forget what is in the folders that were turned out."""
        if not self._out:
            return
        for admitted in (self._files, self._links):
            for path in [path for path in admitted if self._is_out(path)]:
                del admitted[path]
                self.counted.files -= 1
        self._folders = {path: entry for path, entry in self._folders.items() if not self._is_out(path)}
        self._out.clear()

    def refuse(self, entry: Entry, why: str) -> None:
        """Note that it does not come."""
        self.counted.refuse(entry.path, why)

    def have(self, path: str, known: KnownTree) -> None:
        """The admitted file is the same as one that is here already."""
        self._drop_out()
        entry = self._files.pop(path, None)
        if entry is None:
            return
        try:
            known.put(path, self._target / path)
        except FileExistsError:
            self._refuse_twin(path)
            return
        self.counted.bytes += entry.size

    @property
    def wanted(self) -> list[str]:
        """The admitted files that are not here yet."""
        self._drop_out()
        return list(self._files)

    def write(self, path: str, size: int, pieces: Iterable[bytes]) -> bool:
        """Write a file's content, of `size` bytes as it now says. False, and nothing read, if it was not admitted.

        Raises ActionError when it has become too large.
        """
        entry = self._files.pop(path, None)
        if entry is None:
            return False
        if size > self._limits.file:
            raise ActionError(f"{shown(path)} grew over {_size(self._limits.file)} while it came home", _REMOVE)
        self._written = self._within(self._written + size)
        name = self._target / path
        mask = self._masker.stream() if self._masker else None
        try:
            opened = name.open("xb")
        except FileExistsError:
            self._refuse_twin(path)
            for _ in pieces:
                pass  # behind it comes the next file
            return True
        with opened as file:
            for piece in pieces:
                file.write(mask.feed(piece) if mask else piece)
            if mask:
                file.write(mask.finish())
        if mask and mask.found:
            self.counted.mask(path)
        # Its owner can always read it.
        name.chmod((stat.S_IMODE(entry.mode) & 0o777) | 0o400)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns))
        self.counted.bytes += size
        return True

    def finish(self) -> Counted:
        """Make the links; give what was made."""
        self._drop_out()
        # What was there when it was looked at, and gone when it was its turn.
        self.counted.files -= len(self._files)
        ways = Ways(self._links)
        own_leads_out = any(ways.leads_out(path) for path in self._own_links)
        for path, text in self._links.items():
            if own_leads_out and path not in self._own_links and ways.leads_out(path):
                self.counted.files -= 1
                self.counted.refuse(path, f"a link to {shown(text)}, out of the tree through another link")
                continue
            try:
                (self._target / path).symlink_to(text)
            except FileExistsError:
                self._refuse_twin(path)
        # Inner ones first: a folder's time is that of the last change in it.
        for path in sorted(self._folders, key=lambda path: path.count("/"), reverse=True):
            entry = self._folders[path]
            if path and entry.mtime_ns:
                os.utime(self._target / path, ns=(entry.mtime_ns, entry.mtime_ns))
        self.counted.masked.sort()
        return self.counted

    def _refuse_twin(self, path: str) -> None:
        self.counted.files -= 1
        self.counted.refuse(path, TWIN)

    def _made_folder(self, entry: Entry) -> bool:
        try:
            self._make_folder(entry)
        except FileExistsError:
            self.counted.refuse(entry.path, TWIN)
            return False
        return True

    def _make_folder(self, entry: Entry) -> None:
        folder = self._target / entry.path
        if self._owners is not None:
            self._owners[one_name(entry.path)] = entry.path
        folder.mkdir()
        # Its owner can always remove what is in it.
        folder.chmod((stat.S_IMODE(entry.mode) & 0o777) | 0o700)
        self._folders[entry.path] = entry

    def _refusal(self, entry: Entry, *, own_link: bool) -> str:
        if why := name_refusal(entry.path):
            return why
        if self._masker and self._masker.text(entry.path + entry.link) != entry.path + entry.link:
            self.counted.mask(entry.path)
            return "a secret's value stands in its name"
        if stat.S_ISLNK(entry.mode):
            return "" if own_link else link_refusal(entry.path, entry.link)
        if stat.S_ISDIR(entry.mode):
            return ""
        if not stat.S_ISREG(entry.mode):
            return "no plain file"
        if entry.size > self._limits.file:
            return f"its {_size(entry.size)} are over {_size(self._limits.file)}, the limit of a file; {_REMOVE}"
        return ""

    def _within(self, total: int) -> int:
        if total > self._limits.bytes:
            raise ActionError(
                f"over {_size(self._limits.bytes)} would come home, which is the limit",
                "exclude what need not come (`exclude:` of the upload), or remove it in the step that makes it",
            )
        return total


TWIN = "the disk here takes its name for that of another file"
_REMOVE = "exclude it by name, or remove it in the step that makes it"


def _ends(path: str) -> Iterator[int]:
    """Where the names of a path end."""
    yield from (match.start() for match in re.finditer("/", path))
    yield len(path)


def name_refusal(path: str) -> str:
    """Why no file may have this relative path; empty if one may."""
    data = path.encode("utf-8", "surrogateescape")
    parts = data.split(b"/")
    if not all(part not in {b"", b".", b".."} for part in parts) or b"\0" in data:
        return "no name inside of the folder"
    if any(is_git(part) for part in parts):
        return "git would obey what is in it"
    if len(data) > all_limits.TREE_PATH.most or any(len(part) > all_limits.TREE_NAME.most for part in parts):
        return f"a name of over {all_limits.TREE_NAME.most} bytes, or a path of over {all_limits.TREE_PATH.most}"
    if len(parts) > all_limits.TREE_DEPTH.most:
        return f"over {all_limits.TREE_DEPTH.most} folders deep"
    return ""


def link_refusal(path: str, text: str) -> str:
    """Why a symbolic link at this path may not say this; empty if it may: then it leads nowhere out of the tree,
    whatever other links there are and whatever comes later.

    `..` may only come first: after a name it would start from wherever that leads, which may be another link.
    """
    parts = [part for part in text.split("/") if part not in {"", "."}]
    up = next((number for number, part in enumerate(parts) if part != ".."), len(parts))
    told = f"a link to {shown(text)}"
    if not text or text.startswith("/") or up > path.count("/"):
        return f"{told}, out of the tree"
    if ".." in parts[up:]:
        return f"{told}: `..` may only stand at its beginning"
    data = text.encode("utf-8", "surrogateescape")
    if (
        len(data) > all_limits.TREE_PATH.most
        or any(len(part) > all_limits.TREE_NAME.most for part in data.split(b"/"))
        or b"\0" in data
    ):
        return f"{told}, a name too long"
    return ""


def shown(name: str) -> str:
    """A name for a message, on one line and without what a terminal would obey."""
    text = repr(name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))
    return text if len(text) <= 200 else f"{text[:100]}...{text[-80:]}"


def _size(count: int) -> str:
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= factor:
            return re.sub(r"\.0$", "", f"{count / factor:.1f}") + f" {unit}"
    return f"{count} bytes"
