"""What a target is, and the folder for parsers of files."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pccpipe.errors import PccpipeError

SECRET = "s3cret/Of+the=project-42"
WORD = b"SECRET"
"""What a corpus writes for the secret, and for the proxy's token."""


@dataclass(frozen=True)
class Target:
    """One parser.

    Args:
        parse: the work; asserts what must hold of its result.
        errors: what it may raise beside PccpipeError.
    """

    parse: Callable[[bytes], object]
    errors: tuple[type[Exception], ...] = ()


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="pccpipe-fuzz-")


def folder() -> Path:
    """Give a folder of this process, for parsers of files; it goes with the process."""
    return Path(_temporary().name)


def file(data: bytes, name: str = "file") -> Path:
    """Write a file there."""
    path = folder() / name
    path.write_bytes(data)
    return path


def each(*works: Callable[[], object]) -> None:
    """Do all of it, whichever of it fails as it may."""
    for work in works:
        with contextlib.suppress(PccpipeError, ConnectionError, TimeoutError):
            work()


def stays_within(target: Path) -> None:
    """Assert that nothing of a tree leads out of it, or is git's."""
    for path in target.rglob("*"):
        assert ".git" not in {part.lower() for part in path.relative_to(target).parts}
        if path.is_symlink():
            assert not path.readlink().is_absolute()
            # Links in a circle lead nowhere, which `resolve` takes for an error.
            assert Path(os.path.realpath(path)).is_relative_to(target.resolve())
