"""Makes diff.patch, the changes of a run, on the controller from the two trees: the one sent and the one fetched."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from msgspec import Struct

from pccpipe.cancel import Halt
from pccpipe.errors import ActionError
from pccpipe.layout import DIFFED
from pccpipe.record.files import replacing
from pccpipe.secrets.mask import Masker
from pccpipe.workspace.base import Changed
from pccpipe.workspace.entry import Entry
from pccpipe.workspace.exclude import GITIGNORE, OF_MACOS, Excluded, Ignored
from pccpipe.workspace.folder import LOCKED, TreeName, pieces, walk
from pccpipe.workspace.git import LESS, run_git
from pccpipe.workspace.intake import TWIN, Counted, Limits
from pccpipe.workspace.names import is_git, takes_for_one, twins
from pccpipe.workspace.pack import Pack

_OPTIONS = ("--no-index", "--no-prefix", "--no-renames", "--no-color", "--no-ext-diff", "--no-textconv")


class Made(Struct, frozen=True):
    """The counts of a patch, and its digest before secrets were masked."""

    digest: str
    changed: Changed


def make_diff(
    sent: Pack, now: Path, masker: Masker, limits: Limits, halt: Halt | None = None, into: Path | None = None
) -> Made:
    """Write the patch from `sent` to `now` into `into`, with every secret masked.

    Leaves out new files that .gitignore names, and what is not a plain file or link. Also leaves out a binary file
    with a secret in it: a patch packs it, and masking would not find the secret.

    Raises ActionError, Halted.
    """
    # Beside the tree, because hard links need its file system.
    with tempfile.TemporaryDirectory(dir=now.parent, prefix=DIFFED) as name:
        folder = Path(name)
        # git takes the names in the patch from these folders' names.
        refused = _make_trees(sent, now, folder / "a", folder / "b", limits, halt)
        count, leaks = _Count(), Counted()
        for one in _changes(folder, halt):
            if one.is_binary and _has_secret(folder / "b" / one.path, masker, halt):
                leaks.mask(one.path)
                for side in ("a", "b"):
                    (folder / side / one.path).unlink(missing_ok=True)
            else:
                count.add(one)
        digest, mask = hashlib.sha256(), masker.stream()
        with replacing(into) if into else Path(os.devnull).open("wb") as file:

            def write(piece: bytes) -> None:
                digest.update(piece)
                file.write(mask.feed(piece))

            run_git(folder, ["diff", *_OPTIONS, "--binary", "a", "b"], write, halt)
            file.write(mask.finish())
    names = leaks.masked_names or (("the patch",) if mask.found else ())
    return Made(digest.hexdigest(), Changed(count.files, count.insertions, count.deletions, refused, names))


class _Count(Struct):
    files: int = 0
    insertions: int = 0
    deletions: int = 0

    def add(self, one: _Change) -> None:
        self.files += 1
        self.insertions += one.insertions
        self.deletions += one.deletions


def _make_trees(sent: Pack, now: Path, before: Path, after: Path, limits: Limits, halt: Halt | None) -> tuple[str, ...]:
    """Make two trees of what differs: files of `sent`, and files and links of `now`.

    Returns the names of `now` that the diff leaves out, each with its reason. Raises ActionError if it has more files
    than the limit.
    """
    before.mkdir()
    after.mkdir()
    layout = _Layout(sent, now, after, limits, halt)
    for found in walk(now, Excluded.only(()), layout.leave_locked):
        if halt:
            halt.check()
        layout.add(found)
    for path in layout.changed:
        (before / path).parent.mkdir(parents=True, exist_ok=True)
        sent.put(path, before / path, halt)
    return layout.counted.refusals


class _Layout:
    """Makes the tree of what is new or changed in `now`.

    Attributes:
        changed: the paths of `sent` that differ or are missing, after the entries added so far.
        counted: the files of `now`, and those that the diff leaves out.
    """

    def __init__(self, sent: Pack, now: Path, after: Path, limits: Limits, halt: Halt | None) -> None:
        self.counted = Counted()
        self._sent = sent
        self._after = after
        self._limits = limits
        self._halt = halt
        self._ignored = Ignored(
            {path: entry.size for path, entry in sent.entries.items() if _is_gitignore(path, entry)}, sent.read
        )
        self._below_git = ""
        # An earlier version sent macOS's own files. They are not fetched, and that is not a deletion.
        of_macos = Excluded.only(OF_MACOS)
        self.changed = {
            path
            for path, entry in sent.entries.items()
            if _may_be_in_a_diff(entry, limits) and not of_macos.name(path, is_folder=False)
        }
        if takes_for_one(now):
            # This disk can have only one of them: the absence of the others is not a deletion.
            missing = {path for path in twins(sent.entries) if not _has_that_name(now / path)}
            for path in sorted(missing):
                self.counted.refuse(path, TWIN)
            self.changed = {
                path for path in self.changed if missing.isdisjoint([path, *map(str, PurePosixPath(path).parents)])
            }

    def leave_locked(self, entry: Entry) -> None:
        """Leave out an unreadable entry, and what was sent of it, which would look deleted."""
        self.counted.refuse(entry.path, LOCKED)
        inside = f"{entry.path}/"
        self.changed = {path for path in self.changed if path != entry.path and not path.startswith(inside)}

    def add(self, found: TreeName) -> None:
        path, entry = found.entry.path, found.entry
        if self._below_git and path.startswith(self._below_git):
            return
        if is_git(found.name.encode("utf-8", "surrogateescape")):
            self._below_git = f"{path}/"
            if found.name != ".git":
                self.counted.refuse(path, "git would obey what is in it")
            return
        if stat.S_ISDIR(entry.mode) or (path not in self._sent.entries and self._ignored(path)):
            return
        self.counted.files += 1
        if self.counted.files > self._limits.files:
            words = f"the workspace has over {self._limits.files:,} files, which is the limit for a diff"
            raise ActionError(words, LESS)
        why = _diff_refusal(entry.mode, entry.size, self._limits)
        if not why and _is_unchanged(found, self._sent, self._halt):
            self.changed.discard(path)
        elif not why:
            why = self._put(found)
        if why:
            self.counted.refuse(path, why)

    def _put(self, found: TreeName) -> str:
        """Make it in the tree; return why it is not part of a diff after all."""
        made = self._after / found.entry.path
        made.parent.mkdir(parents=True, exist_ok=True)
        _put(found, made, self._halt)
        # Checks again, now that nobody can replace it.
        status = made.lstat()
        why = _diff_refusal(status.st_mode, status.st_size, self._limits)
        if why:
            made.unlink()
        return why


def _has_that_name(path: Path) -> bool:
    """Say whether the disk has it under exactly this name."""
    try:
        return path.name in os.listdir(path.parent)  # noqa: PTH208 - names alone
    except OSError:
        return False


def _put(found: TreeName, made: Path, halt: Halt | None) -> None:
    """Make the same file or link; a file as a hard link, if the kernel allows that."""
    if stat.S_ISLNK(found.entry.mode):
        # macOS has no hard links to symbolic ones.
        made.symlink_to(found.entry.link)
        return
    try:
        os.link(found.name, made, src_dir_fd=found.folder.fd, follow_symlinks=False)
    except PermissionError:
        # The file of another user: the root of a container made it.
        fd = found.folder.file(found.name)
        try:
            with made.open("xb") as file:
                for piece in pieces(fd, found.entry.size):
                    if halt:
                        halt.check()
                    file.write(piece)
        finally:
            os.close(fd)
        made.chmod(stat.S_IMODE(found.entry.mode) & 0o777 | stat.S_IRUSR)


def _is_gitignore(path: str, entry: Entry) -> bool:
    return PurePosixPath(path).name == GITIGNORE and stat.S_ISREG(entry.mode)


def _is_unchanged(found: TreeName, sent: Pack, halt: Halt | None) -> bool:
    """Say whether a diff would find no change. Does not compare times: a step can set them."""
    entry, old = found.entry, sent.entries.get(found.entry.path)
    if old is None or stat.S_IFMT(entry.mode) != stat.S_IFMT(old.mode):
        return False
    if stat.S_ISLNK(entry.mode):
        return entry.link == old.link
    if not stat.S_ISREG(entry.mode) or entry.size != old.size or (entry.mode ^ old.mode) & stat.S_IXUSR:
        return False
    fd = found.folder.file(found.name)
    try:
        for piece in sent.content(entry.path):
            if halt:
                halt.check()
            if _next(fd, len(piece)) != piece:
                return False
        return not os.read(fd, 1)
    finally:
        os.close(fd)


def _next(fd: int, count: int) -> bytes:
    return b"".join(pieces(fd, count))


def _may_be_in_a_diff(entry: Entry, limits: Limits) -> bool:
    return not stat.S_ISDIR(entry.mode) and not _diff_refusal(entry.mode, entry.size, limits)


def _diff_refusal(mode: int, size: int, limits: Limits) -> str:
    if stat.S_ISLNK(mode):
        return ""
    if not stat.S_ISREG(mode):
        return "not a plain file"
    return f"over {limits.file >> 20} MiB, the limit of a file" if size > limits.file else ""


class _Change(Struct, frozen=True):
    """A file that changed; git does not count the lines of a binary file."""

    path: str
    is_binary: bool
    insertions: int
    deletions: int


def _changes(folder: Path, halt: Halt | None) -> Iterator[_Change]:
    listed = folder / "changes"
    with listed.open("xb") as file:
        run_git(folder, ["diff", *_OPTIONS, "--numstat", "-z", "a", "b"], file.write, halt)
    with listed.open("rb") as file:
        fields = _fields(file)
        # Of each file: `added TAB removed TAB`, then both names; /dev/null for a file that does not exist.
        for counts, old, new in zip(fields, fields, fields, strict=False):
            added, removed, _ = counts.split(b"\t")
            path = (old if new == b"/dev/null" else new).decode("utf-8", "surrogateescape")[2:]
            is_binary = added == b"-"
            yield _Change(path, is_binary, 0 if is_binary else int(added), 0 if is_binary else int(removed))


def _fields(file: IO[bytes]) -> Iterator[bytes]:
    held = b""
    while piece := file.read(1 << 16):
        *whole, held = (held + piece).split(b"\0")
        yield from whole


def _has_secret(file: Path, masker: Masker, halt: Halt | None) -> bool:
    if not file.exists() or file.is_symlink():
        return False
    mask = masker.stream()
    with file.open("rb") as opened:
        while data := opened.read(1 << 18):
            if halt:
                halt.check()
            mask.feed(data)
    mask.finish()
    return mask.found
