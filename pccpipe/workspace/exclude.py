"""What never goes up, and what of a run's changes is no change: the rules exist once."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

SECRET_NAMES = (".env*", ".control-secrets*", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519")
"""Names of what a workspace's owner keeps to himself, in .gitignore's words."""
ALWAYS = (".git", "node_modules", ".system", *SECRET_NAMES)
"""Names that stay at home wherever they are."""


class Excluded:
    """Decides by a path relative to the workspace what stays at home, and what does not come back."""

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self.given = tuple(patterns)
        # At the end once more: a `!` of the pipeline's own must not bring a repository's settings home.
        self.patterns: tuple[str, ...] = (*ALWAYS, *patterns, ".git")

    @staticmethod
    def only(patterns: Sequence[str]) -> Excluded:
        """What these patterns name, and nothing else."""
        excluded = Excluded()
        excluded.patterns = tuple(patterns)
        return excluded

    @functools.cached_property
    def _spec(self) -> GitIgnoreSpec:
        return _compiled(self.patterns)

    def name(self, relative: str, *, is_folder: bool) -> bool:
        """Whether the file or folder of that path is left out."""
        return bool(self._spec.match_file(f"{relative}/" if is_folder else relative))


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
    """The same patterns for rsync: there the first that matches counts, and only a `/` in front means the root."""
    rules = []
    for pattern in reversed([pattern.strip() for pattern in patterns]):
        if not pattern or pattern.startswith("#"):
            continue
        name = pattern.removeprefix("!")
        if "/" in name.rstrip("/") and not name.startswith(("/", "**/")):
            name = f"/{name}"
        rules.append(f"--{'include' if pattern.startswith('!') else 'exclude'}={name}")
    return rules


def _compiled(patterns: Iterable[str]) -> GitIgnoreSpec:
    # Imported where it is used: a run that moves no tree need not load it (10 ms).
    from pathspec import GitIgnoreSpec

    return GitIgnoreSpec.from_lines(patterns)
