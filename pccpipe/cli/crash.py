"""Keeps the traceback of pccpipe's own error, in the run's folder or else in a temporary file."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_folder: Path | None = None


def keep_tracebacks_in(folder: Path) -> None:
    """Set the folder of the run to which errors belong from now on."""
    global _folder
    _folder = folder


def keep_traceback() -> Path | None:
    """Write the current error's traceback to a file that only its owner may read.

    Returns the file's path, None if no disk has room.
    """
    # Imported here: every command would pay for it.
    import tempfile
    import traceback

    for folder in (_folder if _folder is not None and _folder.is_dir() else None, None):
        # The disk may be full, which may be the error itself.
        with contextlib.suppress(OSError):
            fd, name = tempfile.mkstemp(prefix="pccpipe-traceback-", suffix=".txt", dir=folder)
            with os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
                traceback.print_exc(file=file)
            return Path(name)
    return None
