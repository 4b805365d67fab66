"""What never goes up, and what of a run's changes is no change: the rules exist once."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

SECRET_NAMES = (".env*", ".control-secrets*", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519")
"""Names of what a workspace's owner keeps to himself, in .gitignore's words."""
ALWAYS = (".git", "node_modules", ".system", *SECRET_NAMES)
"""Names that stay at home wherever they are."""
GITIGNORE = ".gitignore"


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
    """The .gitignore files of a tree, by path: what they name is no change when it is new."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._specs = [
            (path[: -len(GITIGNORE)], _compiled(content.decode("utf-8", "replace").splitlines()))
            for path, content in sorted(files.items())
        ]

    def __call__(self, path: str) -> bool:
        """Whether a file of that path is ignored."""
        return any(path.startswith(folder) and spec.match_file(path[len(folder) :]) for folder, spec in self._specs)


def _compiled(patterns: Iterable[str]) -> GitIgnoreSpec:
    # Imported where it is used: a run that moves no tree need not load it (10 ms).
    from pathspec import GitIgnoreSpec

    return GitIgnoreSpec.from_lines(patterns)
