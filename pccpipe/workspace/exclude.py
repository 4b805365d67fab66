"""What never goes up, and what of a run's changes is no change: the rules exist once."""

from __future__ import annotations

import codecs
import copy
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from pccpipe import limits
from pccpipe.errors import ActionError, LimitExceeded
from pccpipe.layout import SYSTEM
from pccpipe.workspace.gitignore import Patterns, Tree
from pccpipe.workspace.names import composed, is_git

SECRET_NAMES = (".env*", ".control-secrets*", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519")
"""Names of what a workspace's owner keeps to himself, in .gitignore's words."""
OF_MACOS = (".DS_Store", "._*")
"""Names of what macOS makes by itself, and nobody wants."""
ALWAYS = (".git", "node_modules", SYSTEM, *OF_MACOS, *SECRET_NAMES)
"""Names that stay at home wherever they are, in whatever case: where `.ENV` is `.env`, programs read it."""
GITIGNORE = ".gitignore"


class Excluded:
    """Decides by a path relative to the workspace what stays at home, and what does not come back."""

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self.given = tuple(patterns)
        # At the end once more: a `!` of the pipeline's own must not bring a repository's settings home.
        self.patterns: tuple[str, ...] = (*ALWAYS, *patterns, ".git")
        self._keeps_git = False
        self._knows_case = False

    def going_up(self) -> Excluded:
        """The same for what leaves this machine: also what some disk takes for `.git` stays here, whatever its case."""
        excluded = copy.copy(self)
        excluded._keeps_git = True
        return excluded

    @staticmethod
    def only(patterns: Sequence[str]) -> Excluded:
        """What these patterns name, and nothing else."""
        excluded = Excluded()
        excluded.patterns = tuple(patterns)
        excluded._knows_case = True
        return excluded

    @functools.cached_property
    def _tree(self) -> Tree:
        with _told():
            return Tree({"": Patterns(map(composed, self.patterns))})

    @functools.cached_property
    def _in_any_case(self) -> Tree:
        let_in = [pattern for pattern in self.given if pattern.startswith("!")]
        with _told():
            return Tree({"": Patterns(composed(pattern).casefold() for pattern in (*ALWAYS, *let_in, ".git"))})

    def name(self, relative: str, *, is_folder: bool) -> bool:
        """Whether the file or folder of that path is left out. Raises ActionError for too many patterns."""
        if self._keeps_git and is_git(relative.rpartition("/")[2].encode("utf-8", "surrogateescape")):
            return True
        relative = composed(relative)
        if self._tree.ignores(relative, is_folder=is_folder):
            return True
        folded = relative.casefold()
        return not self._knows_case and folded != relative and self._in_any_case.ignores(folded, is_folder=is_folder)


class Ignored:
    """The .gitignore files of a tree: what they name is no change when it is new.

    They are the repository's. Raises ActionError for those that exceed a limit.

    Args:
        sizes: how large each is, by its path.
        read: reads one.
    """

    def __init__(self, sizes: Mapping[str, int], read: Callable[[str], bytes]) -> None:
        with _told():
            if sum(sizes.values()) > limits.IGNORE_FILES.most:
                raise LimitExceeded(limits.IGNORE_FILES)
            patterns: dict[str, Patterns] = {}
            count = 0
            for path in sizes:
                text = read(path).removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
                made = patterns[composed(path.removesuffix(GITIGNORE))] = Patterns(composed(text).split("\n"))
                count += len(made)
                if count > limits.IGNORE_PATTERNS.most:
                    raise LimitExceeded(limits.IGNORE_PATTERNS)
        self._tree = Tree(patterns)

    def __call__(self, path: str) -> bool:
        """Whether a file of that path is ignored. Raises ActionError when that took too much work."""
        ignores = self._tree.ignores(composed(path), is_folder=False)
        if self._tree.steps > limits.IGNORE_WORK.most:
            with _told():
                raise LimitExceeded(limits.IGNORE_WORK)
        return ignores


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except LimitExceeded as error:
        raise ActionError(error.message, code=error.code) from None
