"""What an image was built from: a label that says so, because its name and its age do not."""

from __future__ import annotations

import hashlib
from pathlib import Path

CONTENT_LABEL = "pccpipe.content"


def content_of(context: Path) -> str:
    """The hash of a flat folder's files: what `sha256sum * | sha256sum` says in it, in the C locale."""
    names = sorted(path.name for path in context.iterdir() if path.is_file() and not path.name.startswith("."))
    listing = "".join(f"{hashlib.sha256((context / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    return hashlib.sha256(listing.encode()).hexdigest()
