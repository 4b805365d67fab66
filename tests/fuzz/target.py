"""Define a target, and the folder for parsers of files."""

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
"""Words that a corpus has instead of the secret and the proxy's token."""


@dataclass(frozen=True)
class Target:
    """One parser.

    Args:
        parse: parses an input, and asserts the rules for its result.
        errors: exceptions that it may raise beside PccpipeError.
    """

    parse: Callable[[bytes], object]
    errors: tuple[type[Exception], ...] = ()


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="pccpipe-fuzz-")


def folder() -> Path:
    """Return a folder for parsers of files, which ends with this process."""
    return Path(_temporary().name)


def file(data: bytes, name: str = "file") -> Path:
    """Write a file into that folder."""
    path = folder() / name
    path.write_bytes(data)
    return path


def each(*works: Callable[[], object]) -> None:
    """Do all of the work, although parts of it may fail with an allowed error."""
    for work in works:
        with contextlib.suppress(PccpipeError, ConnectionError, TimeoutError):
            work()


def stays_within(target: Path) -> None:
    """Assert that no entry of a tree leads out of it or belongs to git."""
    for path in target.rglob("*"):
        assert ".git" not in {part.lower() for part in path.relative_to(target).parts}
        if path.is_symlink():
            assert not path.readlink().is_absolute()
            # Links in a circle lead nowhere, and `resolve` raises an error for them.
            assert Path(os.path.realpath(path)).is_relative_to(target.resolve())
