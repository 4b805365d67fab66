from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Make an empty folder to run the command in."""
    return Folder(tmp_path)
