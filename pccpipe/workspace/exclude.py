"""What never goes up, and what of a run's changes is no change: the rules exist once."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

ALWAYS = (".git", ".env*", ".control-secrets*", "node_modules", ".system", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519")
"""Names that stay at home wherever they are, in .gitignore's words."""

_PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----")
_LOOKED_AT = 4096
"""Bytes at the beginning of a file in which a private key is looked for."""


class Excluded:
    """Decides by a path relative to the workspace, and by what the file begins with."""

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self.given = tuple(patterns)
        self.patterns = (*ALWAYS, *patterns)

    @functools.cached_property
    def _spec(self) -> GitIgnoreSpec:
        return _compiled(self.patterns)

    def name(self, relative: str, *, is_folder: bool) -> bool:
        """Whether the file or folder of that path is left out."""
        return bool(self._spec.match_file(f"{relative}/" if is_folder else relative))

    def is_private_key(self, beginning: bytes) -> bool:
        """Whether a file that begins so is a private key."""
        return bool(_PRIVATE_KEY.search(beginning[:_LOOKED_AT]))


class Ignored:
    """The .gitignore files of a tree: what they name is no change when it is new."""

    def __init__(self, tree: Path) -> None:
        self._specs = [
            (
                file.parent.relative_to(tree),
                _compiled(file.read_text("utf-8", "replace").splitlines()),
            )
            for file in sorted(tree.rglob(".gitignore"))
            if file.is_file() and not file.is_symlink()
        ]

    def __call__(self, relative: Path) -> bool:
        """Whether a file of that path is ignored."""
        return any(
            relative.is_relative_to(folder) and spec.match_file(str(relative.relative_to(folder)))
            for folder, spec in self._specs
        )


def as_rsync_rules(patterns: Iterable[str]) -> list[str]:
    """The same patterns for rsync. What it reads otherwise than git does (`!`) is left out: then more goes over, not
    less.
    """
    return [f"--exclude={pattern}" for pattern in patterns if pattern and not pattern.startswith(("!", "#"))]


def _compiled(patterns: Iterable[str]) -> GitIgnoreSpec:
    # Imported where it is used: a run that moves no tree need not load it (10 ms).
    from pathspec import GitIgnoreSpec

    return GitIgnoreSpec.from_lines(patterns)
