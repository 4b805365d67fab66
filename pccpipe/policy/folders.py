"""Which files of the controller a pipeline may name."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from pccpipe.data_files import data_path


class AllowedFolders:
    """The folders in which the files that a pipeline names must lie.

    Args:
        allowed: the operator's; None allows every file.
        own: the folder of the file that names them.
    """

    def __init__(self, allowed: Iterable[Path] | None, own: Path) -> None:
        self._allows_all = allowed is None
        shipped = (data_path("pipelines"), data_path("schemas"))
        self._folders = [os.path.realpath(folder) for folder in (own, *shipped, *(allowed or ()))]

    def has(self, path: Path) -> bool:
        """Say whether a file may be read, after resolving the links on the way to it."""
        if self._allows_all:
            return True
        real = os.path.realpath(path)
        return any(Path(real).is_relative_to(folder) for folder in self._folders)
