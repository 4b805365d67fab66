"""diff.patch: what the run changed, made on the host's side from what was sent and what came back."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from pccpipe.errors import ActionError
from pccpipe.secrets.mask import Masker
from pccpipe.workspace.base import Changed
from pccpipe.workspace.copy import link_tree
from pccpipe.workspace.exclude import Ignored
from pccpipe.workspace.intake import Limits

TIMEOUT = 300.0
"""Seconds for git; it is not to hang on what somebody put into a tree."""
PATCH_LIMIT = 256 << 20
"""Bytes of a patch; nobody applies a larger one."""
_OPTIONS = ("--no-index", "--no-prefix", "--no-renames", "--no-color", "--no-ext-diff", "--no-textconv")


@dataclass(frozen=True, slots=True)
class Made:
    """A patch that `git apply` takes, as it is and with every secret masked, and what is in it."""

    patch: bytes
    masked: bytes
    changed: Changed


def make_diff(sent: Path, now: Path, masker: Masker, limits: Limits) -> Made:
    """The patch from `sent` to `now`; new files that .gitignore names are left out, and so is what no file may be.

    A binary file with a secret in it is left out as well: in a patch it is packed, where no masking finds it.

    Raises ActionError.
    """
    ignored = Ignored(sent)
    new = frozenset(path for path in _files(now) if not os.path.lexists(sent / path) and ignored(path))
    # Beside the trees, because hard links need their file system.
    with tempfile.TemporaryDirectory(dir=now.parent, prefix=".diff-") as name:
        folder = Path(name)
        # git takes the names in the patch from these folders' names.
        link_tree(sent, folder / "a", frozenset(), limits)
        counted = link_tree(now, folder / "b", new, limits)
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
    return Made(patch, masked, Changed(len(kept), insertions, deletions, counted.told, names))


@dataclass(frozen=True, slots=True)
class _Change:
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


def _files(tree: Path) -> list[Path]:
    return [
        (Path(folder) / name).relative_to(tree)
        for folder, folders, files in os.walk(tree, followlinks=False)
        for name in [*files, *(name for name in folders if (Path(folder) / name).is_symlink())]
    ]


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
        "GIT_CEILING_DIRECTORIES": str(folder.parent),
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
