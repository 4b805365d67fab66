"""Where the traceback of an error of pccpipe's own goes: into the run's folder, else into a temporary file."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_folder: Path | None = None


def keep_tracebacks_in(folder: Path) -> None:
    """From now on, this is the folder of the run that an error belongs to."""
    global _folder
    _folder = folder


def keep_traceback() -> Path | None:
    """Write the traceback of the error at hand to a file that only its owner may read; gives its path, None if there is
    no room for it.
    """
    # Imported here: every command would pay for it.
    import tempfile
    import traceback

    for folder in (_folder if _folder is not None and _folder.is_dir() else None, None):
        # The disk that has one may be full, which may be the error itself.
        with contextlib.suppress(OSError):
            fd, name = tempfile.mkstemp(prefix="pccpipe-traceback-", suffix=".txt", dir=folder)
            with os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
                traceback.print_exc(file=file)
            return Path(name)
    return None
