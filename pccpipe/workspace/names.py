"""Finds names that some disk takes for one and the same."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path


def is_git(name: bytes) -> bool:
    """Say whether a disk that ignores case, some characters (macOS) or suffixes (Windows) takes it for `.git`."""
    plain = _UNSEEN.sub("", name.decode("utf-8", "surrogateescape")).lower()
    return plain.partition(":")[0].rstrip(". ") in {".git", "git~1"}


def takes_for_one(folder: Path) -> bool:
    """Say whether the disk of a folder ignores the case of names. Raises OSError."""
    status = folder.lstat()
    try:
        other = folder.with_name(folder.name.swapcase()).lstat()
    except FileNotFoundError:
        return False
    return folder.name != folder.name.swapcase() and (status.st_dev, status.st_ino) == (other.st_dev, other.st_ino)


def one_name(path: str) -> str:
    """Return the form that such a disk compares: equal for names that differ only in case or normal form."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold())


def composed(text: str) -> str:
    """Return the composed form of a name, however its disk spells accents."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def forms(path: str) -> tuple[str, ...]:
    """Return a path as it is, and as other disks would spell it."""
    return tuple(dict.fromkeys([path, composed(path), unicodedata.normalize("NFD", path)]))


def twins(paths: Iterable[str]) -> set[str]:
    """Return the paths that share such a name with another one: the disk can have only one of them."""
    names = {path: one_name(path) for path in paths}
    count = Counter(names.values())
    return {path for path, name in names.items() if count[name] > 1}


_UNSEEN = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")
"""Characters that HFS+ ignores when it compares names (git's `next_hfs_char`)."""
