"""diff.patch: what the run changed, made on the host's side from what was sent and what came back."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
import threading
from pathlib import Path, PurePosixPath

from msgspec import Struct

from pccpipe.errors import ActionError
from pccpipe.secrets.mask import Masker
from pccpipe.targets.machine import Halt
from pccpipe.workspace.base import Changed
from pccpipe.workspace.exclude import GITIGNORE, Excluded, Ignored
from pccpipe.workspace.folder import LOCKED, Found, pieces, walk
from pccpipe.workspace.intake import Counted, Entry, Limits
from pccpipe.workspace.names import is_git
from pccpipe.workspace.pack import Pack

TIMEOUT = 300.0
"""Seconds for git; it is not to hang on what somebody put into a tree."""
PATCH_LIMIT = 256 << 20
"""Bytes of a patch; nobody applies a larger one."""
_OPTIONS = ("--no-index", "--no-prefix", "--no-renames", "--no-color", "--no-ext-diff", "--no-textconv")


class Made(Struct, frozen=True):
    """A patch that `git apply` takes, as it is and with every secret masked, and what is in it."""

    patch: bytes
    masked: bytes
    changed: Changed


def make_diff(sent: Pack, now: Path, masker: Masker, limits: Limits, halt: Halt | None = None) -> Made:
    """The patch from `sent` to `now`; new files that .gitignore names are left out, and so is what no file may be.

    A binary file with a secret in it is left out as well: in a patch it is packed, where no masking finds it.

    Raises ActionError, Halted.
    """
    # Beside the tree, because hard links need its file system.
    with tempfile.TemporaryDirectory(dir=now.parent, prefix=".diff-") as name:
        folder = Path(name)
        # git takes the names in the patch from these folders' names.
        refused = _lay_out(sent, now, folder / "a", folder / "b", limits, halt)
        changes = _changes(folder)
        leaks = [one.path for one in changes if one.is_binary and _has_secret(folder / "b" / one.path, masker)]
        for path in leaks:
            for side in ("a", "b"):
                (folder / side / path).unlink(missing_ok=True)
        patch = _git(folder, ["diff", *_OPTIONS, "--binary", "a", "b"], PATCH_LIMIT)
    masked = masker.data(patch)
    names = tuple(leaks or (["the patch"] if masked != patch else []))
    kept = [one for one in changes if one.path not in leaks]
    insertions, deletions = sum(one.insertions for one in kept), sum(one.deletions for one in kept)
    return Made(patch, masked, Changed(len(kept), insertions, deletions, refused, names))


def _lay_out(sent: Pack, now: Path, before: Path, after: Path, limits: Limits, halt: Halt | None) -> tuple[str, ...]:
    """Make two trees of what is not the same in both: files of `sent`, and hard links to the files and links of `now`.

    Gives those of `now` that are no part of a diff, each with its reason. Raises ActionError when it has more files
    than the limit.
    """
    before.mkdir()
    after.mkdir()
    sizes = {path: entry.size for path, entry in sent.entries.items() if _is_gitignore(path, entry)}
    ignored = Ignored(sizes, sent.read)
    told = Counted()
    left = {path for path, entry in sent.entries.items() if _may_be_in_a_diff(entry, limits)}

    def locked(entry: Entry) -> None:
        # What was sent of it is no part of the diff, or it would look deleted.
        told.refuse(entry.path, LOCKED)
        inside = f"{entry.path}/"
        left.difference_update([path for path in left if path == entry.path or path.startswith(inside)])

    below = ""
    for found in walk(now, Excluded.only(()), locked):
        if halt:
            halt.check()
        path = found.entry.path
        if below and path.startswith(below):
            continue
        if is_git(found.name.encode("utf-8", "surrogateescape")):
            below = f"{path}/"
            if found.name != ".git":
                told.refuse(path, "git would obey what is in it")
            continue
        if stat.S_ISDIR(found.entry.mode) or (path not in sent.entries and ignored(path)):
            continue
        told.files += 1
        if told.files > limits.files:
            words = f"the workspace has over {limits.files:,} files, which is the limit for a diff"
            raise ActionError(words, _LESS)
        why = _no_part_of_a_diff(found.entry.mode, found.entry.size, limits)
        if not why and _is_unchanged(found, sent):
            left.discard(path)
        elif not why:
            made = after / path
            made.parent.mkdir(parents=True, exist_ok=True)
            _put(found, made)
            # Once more, now that nobody can put another in its place.
            status = made.lstat()
            if why := _no_part_of_a_diff(status.st_mode, status.st_size, limits):
                made.unlink()
        if why:
            told.refuse(path, why)
    for path in left:
        (before / path).parent.mkdir(parents=True, exist_ok=True)
        sent.put(path, before / path)
    return told.told


def _put(found: Found, made: Path) -> None:
    """Make the file or link again: as a hard link, if the kernel allows that."""
    try:
        os.link(found.name, made, src_dir_fd=found.folder.fd, follow_symlinks=False)
    except PermissionError:
        # Another user's: a container's root has made it.
        if stat.S_ISLNK(found.entry.mode):
            made.symlink_to(found.entry.link)
            return
        fd = found.folder.file(found.name)
        try:
            with made.open("xb") as file:
                file.writelines(pieces(fd, found.entry.size))
        finally:
            os.close(fd)
        made.chmod(stat.S_IMODE(found.entry.mode) & 0o777 | stat.S_IRUSR)


def _is_gitignore(path: str, entry: Entry) -> bool:
    return PurePosixPath(path).name == GITIGNORE and stat.S_ISREG(entry.mode)


def _is_unchanged(found: Found, sent: Pack) -> bool:
    """Whether it is, to a diff, what was sent. Its time says nothing: a step can set it."""
    entry, old = found.entry, sent.entries.get(found.entry.path)
    if old is None or stat.S_IFMT(entry.mode) != stat.S_IFMT(old.mode):
        return False
    if stat.S_ISLNK(entry.mode):
        return entry.link == old.link
    if not stat.S_ISREG(entry.mode) or entry.size != old.size or (entry.mode ^ old.mode) & stat.S_IXUSR:
        return False
    fd = found.folder.file(found.name)
    try:
        return all(_next(fd, len(piece)) == piece for piece in sent.content(entry.path)) and not os.read(fd, 1)
    finally:
        os.close(fd)


def _next(fd: int, count: int) -> bytes:
    return b"".join(pieces(fd, count))


def _may_be_in_a_diff(entry: Entry, limits: Limits) -> bool:
    return not stat.S_ISDIR(entry.mode) and not _no_part_of_a_diff(entry.mode, entry.size, limits)


def _no_part_of_a_diff(mode: int, size: int, limits: Limits) -> str:
    if stat.S_ISLNK(mode):
        return ""
    if not stat.S_ISREG(mode):
        return "no plain file"
    return f"over {limits.file >> 20} MiB, the limit of a file" if size > limits.file else ""


class _Change(Struct, frozen=True):
    """A file that changed; git counts no lines of one that it takes for binary."""

    path: str
    is_binary: bool
    insertions: int
    deletions: int


def _changes(folder: Path) -> list[_Change]:
    told = _git(folder, ["diff", *_OPTIONS, "--numstat", "-z", "a", "b"], PATCH_LIMIT).split(b"\0")
    # For each, `added TAB removed TAB`, then both names; /dev/null for a file that is not there.
    changes = []
    for counts, old, new in zip(told[0::3], told[1::3], told[2::3], strict=False):
        added, removed, _ = counts.split(b"\t")
        path = (old if new == b"/dev/null" else new).decode("utf-8", "surrogateescape")[2:]
        is_binary = added == b"-"
        changes.append(_Change(path, is_binary, 0 if is_binary else int(added), 0 if is_binary else int(removed)))
    return changes


def _has_secret(file: Path, masker: Masker) -> bool:
    if not file.exists() or file.is_symlink():
        return False
    mask = masker.stream()
    with file.open("rb") as opened:
        while data := opened.read(1 << 20):
            mask.feed(data)
    mask.finish()
    return mask.found


def _git(folder: Path, arguments: list[str], most: int) -> bytes:
    # Nothing of the user's configuration, nor of a repository around, and no attributes of the trees: bytes are
    # compared.
    env = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LC_ALL": "C",
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        # Whatever is around is no repository of this; a name may have a colon, so no list of folders says it.
        "GIT_DIR": "/nonexistent",
        "GIT_OPTIONAL_LOCKS": "0",
    }
    settings = ["-c", "core.autocrlf=false", "-c", "core.attributesFile=/dev/null", "-c", "core.safecrlf=false"]
    command = ["git", *settings, *arguments]
    # What it says is short; in a file, nobody has to read it while the patch comes.
    with tempfile.TemporaryFile() as words:
        try:
            process = subprocess.Popen(
                command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=words
            )
        except FileNotFoundError:
            raise ActionError("the diff is made by git, which is not installed here", "install git") from None
        timer = threading.Timer(TIMEOUT, process.kill)
        timer.start()
        with process:
            assert process.stdout is not None
            said = process.stdout.read(most + 1)
            if len(said) > most:
                process.kill()
        if not timer.is_alive():
            raise ActionError(f"git took over {TIMEOUT:g} s for the diff", _LESS)
        timer.cancel()
        if len(said) > most:
            raise ActionError(f"the diff is over {most >> 20} MiB, which is the limit", _LESS)
        if process.returncode > 1:
            words.seek(0)
            raise ActionError(f"git could not make the diff: {words.read(4096).decode('utf-8', 'replace').strip()}")
    return said


_LESS = "exclude what is no work (`exclude:` of the upload), or remove it in the step that makes it"
