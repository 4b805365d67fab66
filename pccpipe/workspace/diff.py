"""diff.patch: what the run changed, made on the host's side from what was sent and what came back."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

from pccpipe.errors import ActionError
from pccpipe.workspace.base import Changed
from pccpipe.workspace.copy import link_tree
from pccpipe.workspace.exclude import Ignored

TIMEOUT = 300.0
"""Seconds for git; it is not to hang on what somebody put into a tree."""
_STAT = re.compile(rb"(\d+) files? changed(?:, (\d+) insertions?\(\+\))?(?:, (\d+) deletions?\(-\))?")


def write_diff(sent: Path, now: Path, patch: Path) -> Changed:
    """Write a patch that `git apply` takes from `sent` to `now`; new files that .gitignore names are left out.

    Raises ActionError.
    """
    ignored = Ignored(sent)
    new = frozenset(path for path in _files(now) if not os.path.lexists(sent / path) and ignored(path))
    # Beside the trees, because hard links need their file system.
    with tempfile.TemporaryDirectory(dir=now.parent, prefix=".diff-") as name:
        folder = Path(name)
        # git takes the names in the patch from these folders' names.
        link_tree(sent, folder / "a", frozenset())
        link_tree(now, folder / "b", new)
        options = [
            "--no-index",
            "--no-prefix",
            "--binary",
            "--no-renames",
            "--no-color",
            "--no-ext-diff",
            "--no-textconv",
        ]
        text = _git(folder, ["diff", *options, "a", "b"])
        stat = _STAT.search(_git(folder, ["diff", *options, "--shortstat", "a", "b"]))
    patch.parent.mkdir(parents=True, exist_ok=True)
    patch.write_bytes(text)
    if not stat:
        return Changed(0, 0, 0)
    files, insertions, deletions = (int(number or 0) for number in stat.groups())
    return Changed(files, insertions, deletions)


def _files(tree: Path) -> list[Path]:
    return [
        (Path(folder) / name).relative_to(tree)
        for folder, folders, files in os.walk(tree, followlinks=False)
        for name in [*files, *(name for name in folders if (Path(folder) / name).is_symlink())]
    ]


def _git(folder: Path, arguments: list[str]) -> bytes:
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
    try:
        done = subprocess.run(
            ["git", *settings, *arguments],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
    except FileNotFoundError:
        raise ActionError("the diff is made by git, which is not installed here", "install git") from None
    except subprocess.TimeoutExpired:
        raise ActionError(f"git took over {TIMEOUT:g} s for the diff") from None
    if done.returncode > 1:
        raise ActionError(f"git could not make the diff: {done.stderr.decode('utf-8', 'replace').strip()}")
    return done.stdout
