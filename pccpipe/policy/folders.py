"""Which files of the controller a pipeline may name."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from pccpipe.data_files import data_path
from pccpipe.errors import ActionError
from pccpipe.outcome import Code

OUTSIDE = "it lies outside of the folders that the policy allows"


class AllowedFolders:
    """The folders in which the files that a pipeline names must lie.

    Args:
        allowed: the operator's; None allows every file.
        own: the folder of the file that names them, and others that are a run's own.
    """

    def __init__(self, allowed: Iterable[Path] | None, *own: Path) -> None:
        self._allows_all = allowed is None
        shipped = (data_path("pipelines"), data_path("schemas"))
        self._folders = [os.path.realpath(folder) for folder in (*own, *shipped, *(allowed or ()))]

    def has(self, path: Path) -> bool:
        """Say whether a file may be read, after resolving the links on the way to it."""
        return self._allows_all or self._around(os.path.realpath(path)) is not None

    def check(self, path: Path) -> None:
        """Raise ActionError with the code `policy_refused` for a file that may not be read."""
        if not self.has(path):
            raise ActionError(refusal(path), code=Code.POLICY_REFUSED)

    def open(self, path: Path) -> BinaryIO:
        """Open a file for reading.

        Follows no link below an allowed folder: one that takes a file's place between check and use leads nowhere.

        Raises OSError; ActionError with the code `policy_refused`.
        """
        if self._allows_all:
            return path.open("rb")
        real = os.path.realpath(path)
        folder = self._around(real)
        if folder is None:
            raise ActionError(refusal(path), code=Code.POLICY_REFUSED)
        parts = Path(real).relative_to(folder).parts
        at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts[:-1]:
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
                os.close(at)
                at = below
            # Without waiting for a writer of a named pipe.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            return os.fdopen(os.open(parts[-1] if parts else ".", flags, dir_fd=at), "rb")
        finally:
            os.close(at)

    def _around(self, real: str) -> str | None:
        return next((folder for folder in self._folders if Path(real).is_relative_to(folder)), None)


def refusal(path: Path) -> str:
    """Return the sentence that refuses a path."""
    return f"the policy refuses the path `{path}`: {OUTSIDE}"
