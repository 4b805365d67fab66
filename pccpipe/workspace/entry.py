"""Describes one name of a tree, and counts the memory that many names take."""

from __future__ import annotations

import sys

from msgspec import Struct

from pccpipe import limits
from pccpipe.errors import ActionError


class Entry(Struct, frozen=True, gc=False):
    path: str
    """Relative, without `./`; bytes that are not UTF-8 as surrogates."""
    mode: int
    """As `st_mode`; 0 for an unknown kind."""
    size: int = 0
    mtime_ns: int = 0
    link: str = ""
    """The text of a symbolic link."""
    is_locked: bool = False
    """Its machine may not read it, or not enter it."""


class EntryMemory:
    """Counts the memory that the names of a tree take."""

    def __init__(self) -> None:
        self._size = 0

    def add(self, entry: Entry) -> None:
        """Raises ActionError if all names together exceed the limit."""
        self._size += sys.getsizeof(entry.path) + (sys.getsizeof(entry.link) if entry.link else 0)
        if self._size > limits.TREE_NAMES.most:
            raise ActionError(limits.TREE_NAMES.exceeded(), code=limits.TREE_NAMES.code)
