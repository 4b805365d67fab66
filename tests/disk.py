"""Give a test a small disk that it can fill."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

SIZE = "4m"


class SmallDisk:
    """A file system of 4 MiB at `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        """Fill it to the last byte."""
        with (self.folder / ".fill").open("wb", buffering=0) as file:
            for size in (64 << 10, 4 << 10, 1):
                try:
                    while file.write(bytes(size)):
                        pass
                except OSError:
                    continue

    def unfill(self) -> None:
        """Free the space again."""
        (self.folder / ".fill").unlink()


def mounted(folder: Path) -> Iterator[SmallDisk]:
    """Mount one at a new folder, and remove it at the end."""
    folder.mkdir(parents=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"a file system can't be mounted here: {made.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    yield from mounted(tmp_path / "small")


@pytest.fixture
def small_home(tmp_path: Path) -> Iterator[SmallDisk]:
    """Give the disk for the records of a `Control` at `tmp_path`."""
    yield from mounted(tmp_path / ".system")
