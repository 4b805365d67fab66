"""Decides which files never leave this machine, and which new files do not count as changes."""

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
"""Names of files that the owner of a workspace keeps private, as .gitignore patterns."""
OF_MACOS = (".DS_Store", "._*")
"""Names of files that macOS makes by itself, and that nobody needs."""
ALWAYS = (".git", "node_modules", SYSTEM, *OF_MACOS, *SECRET_NAMES)
"""Names that stay on this machine in any folder and any case: where `.ENV` is `.env`, programs read it."""
GITIGNORE = ".gitignore"


class Excluded:
    """Decides, by paths relative to the workspace, which files are neither sent nor fetched."""

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self.given = tuple(patterns)
        # Repeated at the end: a `!` of the pipeline must not let a repository's settings in.
        self.patterns: tuple[str, ...] = (*ALWAYS, *patterns, ".git")
        self._keeps_git = False
        self._knows_case = False

    def going_up(self) -> Excluded:
        """Return the rules for sending, which also exclude every name that some disk takes for `.git`."""
        excluded = copy.copy(self)
        excluded._keeps_git = True
        return excluded

    @staticmethod
    def only(patterns: Sequence[str]) -> Excluded:
        """Return rules that exclude what these patterns name, and nothing else."""
        excluded = Excluded()
        excluded.patterns = tuple(patterns)
        excluded._knows_case = True
        return excluded

    @functools.cached_property
    def _tree(self) -> Tree:
        with _limits_as_action_errors():
            return Tree({"": Patterns(map(composed, self.patterns))})

    @functools.cached_property
    def _in_any_case(self) -> Tree:
        let_in = [pattern for pattern in self.given if pattern.startswith("!")]
        with _limits_as_action_errors():
            return Tree({"": Patterns(composed(pattern).casefold() for pattern in (*ALWAYS, *let_in, ".git"))})

    def name(self, relative: str, *, is_folder: bool) -> bool:
        """Say whether the file or folder at that path is excluded. Raises ActionError for too many patterns."""
        if self._keeps_git and is_git(relative.rpartition("/")[2].encode("utf-8", "surrogateescape")):
            return True
        relative = composed(relative)
        if self._tree.ignores(relative, is_folder=is_folder):
            return True
        folded = relative.casefold()
        return not self._knows_case and folded != relative and self._in_any_case.ignores(folded, is_folder=is_folder)


class Ignored:
    """The .gitignore files of a tree: a new file that they name does not count as a change.

    They come from the repository, so they are untrusted. Raises ActionError for those that exceed a limit.

    Args:
        sizes: the size of each, by its path.
        read: reads one of them.
    """

    def __init__(self, sizes: Mapping[str, int], read: Callable[[str], bytes]) -> None:
        with _limits_as_action_errors():
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
        """Say whether a file at that path is ignored. Raises ActionError if the patterns take too much work."""
        ignores = self._tree.ignores(composed(path), is_folder=False)
        if self._tree.steps > limits.IGNORE_WORK.most:
            with _limits_as_action_errors():
                raise LimitExceeded(limits.IGNORE_WORK)
        return ignores


@contextmanager
def _limits_as_action_errors() -> Iterator[None]:
    try:
        yield
    except LimitExceeded as error:
        raise ActionError(error.message, code=error.code) from None
