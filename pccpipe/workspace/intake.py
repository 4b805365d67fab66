"""Makes a tree from what an untrusted place sends: checks each name and kind, counts them, and enforces the limits
before it writes.

It writes to a new folder that nobody else writes to, and links last. So nothing is ever written or read through a link.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Protocol

from msgspec import Struct, field

from pccpipe import limits as all_limits
from pccpipe.errors import ActionError
from pccpipe.secrets.mask import Masker
from pccpipe.workspace.allowed import link_refusal, name_refusal, shown
from pccpipe.workspace.entry import Entry, EntryMemory
from pccpipe.workspace.links import LinkResolver
from pccpipe.workspace.names import one_name, takes_for_one

TWIN = "the disk of this machine takes its name for that of another file"
_REMOVE = "exclude it by name, or remove it in the step that makes it"
_FEWER = "exclude what need not be fetched (`exclude:` of the upload), or remove it in the step that makes it"


class Limits(Struct, frozen=True):
    """The most that may be fetched. Sizes in bytes, as a file states it: a sparse one counts whole."""

    files: int = all_limits.FETCHED_FILES.most
    """Folders and links count as well."""
    bytes: int = all_limits.FETCHED_BYTES.most
    file: int = all_limits.FETCHED_FILE.most


class Counted(Struct):
    """The counts of a copy or fetch."""

    files: int = 0
    bytes: int = 0
    refused: list[str] = field(default_factory=list)
    """Names that were not taken, each with its reason."""
    more_refused: int = 0
    masked: list[str] = field(default_factory=list)
    """Files with a secret in them, or in their name."""
    more_masked: int = 0
    found: set[int] = field(default_factory=set)
    """The paths of a download that something matched, by their numbers."""
    brought: set[int] = field(default_factory=set)
    """The paths of a download of which a file was taken."""

    def refuse(self, path: str, why: str) -> None:
        """Record that a file is not taken."""
        if len(self.refused) < all_limits.REFUSED_NAMED.most:
            self.refused.append(f"{shown(path)}: {why}")
        else:
            self.more_refused += 1

    def mask(self, path: str) -> None:
        """Record that a secret was in a file, or in its name."""
        if len(self.masked) < all_limits.REFUSED_NAMED.most:
            self.masked.append(path)
        else:
            self.more_masked += 1

    @property
    def refusals(self) -> tuple[str, ...]:
        """The refused names, and the number of further ones."""
        return (*self.refused, *([f"and {self.more_refused} more"] if self.more_refused else []))

    @property
    def masked_names(self) -> tuple[str, ...]:
        """The masked files, and the number of further ones."""
        return (*self.masked, *([f"{self.more_masked} more"] if self.more_masked else []))


class KnownTree(Protocol):
    """A tree that is local already."""

    @property
    def entries(self) -> Mapping[str, Entry]: ...

    def put(self, path: str, target: Path) -> None:
        """Make a file of it, with its time and mode. Raises OSError."""
        ...


class Intake:
    """Makes a new `target`. First `admit` each entry, folders before what is in them. Then `write` each admitted file
    once, and `finish`.

    Args:
        masker: removes secrets from files before they are written; None leaves them as they are.
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
        self._memory = EntryMemory()
        self._folders: dict[str, Entry] = {"": Entry("", stat.S_IFDIR | 0o755)}
        self._links: dict[str, str] = {}
        self._files: dict[str, Entry] = {}
        self._announced = 0
        self._written = 0
        self._owners: dict[str, str] | None = {} if takes_for_one(target) else None
        """The path that has a name, on a disk that takes several names for one."""
        self._known: set[str] = set()
        self._withdrawn: set[str] = set()
        """Admitted folders whose name a folder of the upload needed afterwards."""

    def make_parents(self, path: str) -> None:
        """Make the folders above a path that was asked for by name."""
        for parent in reversed(PurePosixPath(path).parents):
            name = "" if str(parent) == "." else str(parent)
            if name not in self._folders and not self._made_folder(Entry(name, stat.S_IFDIR | 0o755)):
                return

    def admit(self, entry: Entry, *, own_link: bool = False, known: bool = False) -> bool:
        """Return whether the tree may have it. Makes folders at once; `finish` makes links.

        Args:
            own_link: the upload had this link, and it is unchanged: it may lead anywhere.
            known: the upload had this path: no other file with an equal name on this disk may replace it.

        Raises ActionError if everything together exceeds a limit.
        """
        parent = entry.path.rpartition("/")[0]
        if parent not in self._folders or entry.path in self._seen or self._is_withdrawn(parent):
            return False  # its folder was not admitted
        self._seen.add(entry.path)
        self._memory.add(entry)
        if entry.path in self._folders:  # a parent of a path that was asked for
            return stat.S_ISDIR(entry.mode)
        if len(self._seen) > self._limits.files:
            raise ActionError(f"over {self._limits.files:,} files would be fetched, which is the limit", _FEWER)
        why = self._refusal(entry, own_link=own_link) or self._name_conflict(entry.path, known=known)
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

    def _name_conflict(self, path: str, *, known: bool) -> str:
        """Return which other path has the name on this disk; empty if none has."""
        if self._owners is None:
            return ""
        name = one_name(path)
        owner = self._owners.setdefault(name, path)
        if owner != path and not self._is_withdrawn(owner):
            if owner in self._known or not known:
                return f"the disk of this machine takes its name for that of {shown(owner)}"
            self._withdraw(owner)
            self.counted.refuse(owner, f"the disk of this machine takes its name for that of {shown(path)}")
        self._owners[name] = path
        if known:
            self._known.add(path)
        return ""

    def _withdraw(self, path: str) -> None:
        """Undo an admission. The contents of a folder go later, all at once."""
        if path in self._folders:
            self._withdrawn.add(path)
            shutil.rmtree(self._target / path, ignore_errors=True)
            return
        self._files.pop(path, None)
        self._links.pop(path, None)
        self.counted.files -= 1

    def _is_withdrawn(self, path: str) -> bool:
        return bool(self._withdrawn) and any(path[:end] in self._withdrawn for end in _ends(path))

    def _drop_withdrawn(self) -> None:
        """Forget the contents of the withdrawn folders."""
        if not self._withdrawn:
            return
        for admitted in (self._files, self._links):
            for path in [path for path in admitted if self._is_withdrawn(path)]:
                del admitted[path]
                self.counted.files -= 1
        self._folders = {path: entry for path, entry in self._folders.items() if not self._is_withdrawn(path)}
        self._withdrawn.clear()

    def refuse(self, entry: Entry, why: str) -> None:
        """Record that the tree does not have it."""
        self.counted.refuse(entry.path, why)

    def reuse(self, path: str, known: KnownTree) -> None:
        """Make an admitted file from the same file of a local tree."""
        self._drop_withdrawn()
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
        """The admitted files that are not local yet."""
        self._drop_withdrawn()
        return list(self._files)

    def write(self, path: str, size: int, pieces: Iterable[bytes]) -> bool:
        """Write a file's content, of `size` bytes as its sender now says.

        Returns False, without reading anything, if it was not admitted. Raises ActionError if it grew too large.
        """
        entry = self._files.pop(path, None)
        if entry is None:
            return False
        if size > self._limits.file:
            raise ActionError(f"{shown(path)} grew over {_size(self._limits.file)} while pccpipe fetched it", _REMOVE)
        self._written = self._within(self._written + size)
        name = self._target / path
        mask = self._masker.stream() if self._masker else None
        try:
            opened = name.open("xb")
        except FileExistsError:
            self._refuse_twin(path)
            for _ in pieces:
                pass  # the next file follows it
            return True
        with opened as file:
            for piece in pieces:
                file.write(mask.feed(piece) if mask else piece)
            if mask:
                file.write(mask.finish())
        if mask and mask.found:
            self.counted.mask(path)
        # So that its owner can always read it.
        name.chmod((stat.S_IMODE(entry.mode) & 0o777) | 0o400)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns))
        self.counted.bytes += size
        return True

    def finish(self) -> Counted:
        """Make the links; return the counts."""
        self._drop_withdrawn()
        # These were listed, and vanished before they were read.
        self.counted.files -= len(self._files)
        resolver = LinkResolver(self._links)
        own_leads_out = any(resolver.leads_out(path) for path in self._own_links)
        for path, text in self._links.items():
            if own_leads_out and path not in self._own_links and resolver.leads_out(path):
                self.counted.files -= 1
                self.counted.refuse(path, f"a link to {shown(text)}, out of the tree through another link")
                continue
            try:
                (self._target / path).symlink_to(text)
            except FileExistsError:
                self._refuse_twin(path)
        # Inner folders first: any change in a folder sets its time.
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
        # So that its owner can always empty it.
        folder.chmod((stat.S_IMODE(entry.mode) & 0o777) | 0o700)
        self._folders[entry.path] = entry

    def _refusal(self, entry: Entry, *, own_link: bool) -> str:
        if why := name_refusal(entry.path):
            return why
        if self._masker and self._masker.text(entry.path + entry.link) != entry.path + entry.link:
            self.counted.mask(entry.path)
            return "a secret's value is in its name"
        if stat.S_ISLNK(entry.mode):
            return "" if own_link else link_refusal(entry.path, entry.link)
        if stat.S_ISDIR(entry.mode):
            return ""
        if not stat.S_ISREG(entry.mode):
            return "not a plain file"
        if entry.size > self._limits.file:
            return f"{_size(entry.size)} is over the limit of a file, {_size(self._limits.file)}; {_REMOVE}"
        return ""

    def _within(self, total: int) -> int:
        if total > self._limits.bytes:
            raise ActionError(f"over {_size(self._limits.bytes)} would be fetched, which is the limit", _FEWER)
        return total


def _ends(path: str) -> Iterator[int]:
    """Yield the positions at which the names of a path end."""
    yield from (match.start() for match in re.finditer("/", path))
    yield len(path)


def _size(count: int) -> str:
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= factor:
            return re.sub(r"\.0$", "", f"{count / factor:.1f}") + f" {unit}"
    return f"{count} bytes"
