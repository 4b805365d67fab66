"""Names that some disk takes for another one."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path


def is_git(name: bytes) -> bool:
    """Whether a disk that ignores case, some characters (macOS) or what ends a name (Windows) takes it for `.git`."""
    plain = _UNSEEN.sub("", name.decode("utf-8", "surrogateescape")).lower()
    return plain.partition(":")[0].rstrip(". ") in {".git", "git~1"}


def takes_for_one(folder: Path) -> bool:
    """Whether the disk of a folder takes names for one that differ in case alone. Raises OSError."""
    there = folder.lstat()
    try:
        other = folder.with_name(folder.name.swapcase()).lstat()
    except FileNotFoundError:
        return False
    return folder.name != folder.name.swapcase() and (there.st_dev, there.st_ino) == (other.st_dev, other.st_ino)


def one_name(path: str) -> str:
    """Give what such a disk compares: the same for all names that differ in case or normal form alone."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold())


def composed(text: str) -> str:
    """Give the usual form of a name, however the disk that it comes from spells its accents."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def forms(path: str) -> tuple[str, ...]:
    """Give a path as it is, and as other disks would spell it."""
    return tuple(dict.fromkeys([path, composed(path), unicodedata.normalize("NFD", path)]))


def twins(paths: Iterable[str]) -> set[str]:
    """Find the paths of which such a disk can have one only."""
    names = {path: one_name(path) for path in paths}
    count = Counter(names.values())
    return {path for path, name in names.items() if count[name] > 1}


_UNSEEN = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")
"""Characters that HFS+ leaves out when it compares names (git's `next_hfs_char`)."""
