"""Names that some disk takes for another one."""

from __future__ import annotations

import re


def is_git(name: bytes) -> bool:
    """Whether a disk that ignores case, some characters (macOS) or what ends a name (Windows) takes it for `.git`."""
    plain = _UNSEEN.sub("", name.decode("utf-8", "surrogateescape")).lower()
    return plain.partition(":")[0].rstrip(". ") in {".git", "git~1"}


_UNSEEN = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")
"""Characters that HFS+ leaves out when it compares names (git's `next_hfs_char`)."""
