"""Labels an image with the hash of the folder that it was built from: its name and age do not say that."""

from __future__ import annotations

import hashlib
from pathlib import Path

CONTENT_LABEL = "pccpipe.content"


def content_of(context: Path) -> str:
    """Return the hash of a flat folder's files: that of `sha256sum * | sha256sum` in the C locale."""
    names = sorted(path.name for path in context.iterdir() if path.is_file() and not path.name.startswith("."))
    listing = "".join(f"{hashlib.sha256((context / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    return hashlib.sha256(listing.encode()).hexdigest()
