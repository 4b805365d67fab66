"""Runs git on untrusted files: with limits of time and memory, piece by piece, and without the user's configuration."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO

from pccpipe import limits
from pccpipe.cancel import Halt
from pccpipe.errors import ActionError

TIMEOUT = 300.0
"""Seconds for git: an agent's tree must not make it hang."""
LESS = "exclude generated files (`exclude:` of the upload), or remove them in the step that makes them"
_PIECE = 256 << 10
_SETTINGS = ("-c", "core.autocrlf=false", "-c", "core.attributesFile=/dev/null", "-c", "core.safecrlf=false")
_FAST = (
    *("-c", "core.compression=1", "-c", "fastimport.unpackLimit=1"),
    # The upload left out each name that a disk takes for `.git`.
    *("-c", "core.protectHFS=false", "-c", "core.protectNTFS=false"),
)
# Limits data and not the address space: git maps the files that it compares, which takes no memory of its own.
_BOUNDED = 'ulimit -d "$1" 2>/dev/null; shift; exec "$@"'


def run_git(
    folder: Path, arguments: Sequence[str], on_output: Callable[[bytes], object], halt: Halt | None = None
) -> int:
    """Pass the output of git to `on_output`, and return its size in bytes. Raises ActionError, Halted."""
    # Its stderr is short; in a file, nothing has to read it while the patch arrives.
    with tempfile.TemporaryFile() as words:
        # Ignores any repository around. GIT_CEILING_DIRECTORIES cannot: a folder's name may have a colon.
        process = _begin(folder, "/nonexistent", (*_SETTINGS, *arguments), "the diff", words)
        with _Watch(process, halt, "the diff"):
            size = _read(process, on_output)
        _check(process, words, (0, 1), "the diff")
    return size


def feed_git(repository: Path, arguments: Sequence[str], data: Iterable[bytes], halt: Halt) -> None:
    """Run git on a new repository of pccpipe's own, and feed it. Raises ActionError, Halted."""
    what = "the repository of the workspace"
    with tempfile.TemporaryFile() as words:
        process = _begin(repository, str(repository), (*_FAST, *arguments), what, words, is_fed=True)
        assert process.stdin is not None
        with _Watch(process, halt, what):
            # git may have ended with an error, which its words explain.
            with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
                for piece in data:
                    stdin.write(piece)
            process.wait()
        _check(process, words, (0,), what)


def _begin(
    folder: Path, git_dir: str, arguments: Sequence[str], what: str, words: IO[bytes], *, is_fed: bool = False
) -> subprocess.Popen[bytes]:
    """Start git, which makes `what`, without the user's configuration, or attributes of the trees."""
    path = os.environ.get("PATH", os.defpath)
    git = shutil.which("git", path=path)
    if git is None:
        raise ActionError(f"git is not installed on this machine, and pccpipe makes {what} with it", "install git")
    env = {
        "PATH": path,
        "LC_ALL": "C",
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_DIR": git_dir,
        "GIT_OPTIONAL_LOCKS": "0",
    }
    kib = str(limits.DIFF_MEMORY.most >> 10)
    command = ["sh", "-c", _BOUNDED, "sh", kib, git, *arguments]
    ours, none = subprocess.PIPE, subprocess.DEVNULL
    stdin, stdout = (ours, none) if is_fed else (none, ours)
    return subprocess.Popen(command, cwd=folder, env=env, stdin=stdin, stdout=stdout, stderr=words)


def _check(process: subprocess.Popen[bytes], words: IO[bytes], good: tuple[int, ...], what: str) -> None:
    if process.returncode in good:
        return
    words.seek(0)
    stderr = words.read(4096).decode("utf-8", "replace").strip()
    # Without Xcode's tools, the git of macOS only asks to install them.
    hint = "xcode-select --install" if stderr.startswith("xcrun: error") or "xcode-select" in stderr else LESS
    raise ActionError(f"git could not make {what}: {stderr or f'exit code {process.returncode}'}", hint)


class _Watch:
    """Kills git at its timeout, at a halt, and when the block ends with an error."""

    def __init__(self, process: subprocess.Popen[bytes], halt: Halt | None, what: str) -> None:
        self._process = process
        self._what = what
        self._halt = halt
        self._is_late = threading.Event()
        self._timer = threading.Timer(TIMEOUT, self._end)
        self._watched: AbstractContextManager[None] = halt.watched_by(process.kill) if halt else nullcontext()

    def _end(self) -> None:
        self._is_late.set()
        self._process.kill()

    def __enter__(self) -> None:
        self._timer.start()
        self._watched.__enter__()

    def __exit__(self, kind: object, *_: object) -> None:
        self._watched.__exit__(None, None, None)
        self._timer.cancel()
        if kind:
            self._process.kill()
        with self._process:
            pass
        if kind:
            return
        if self._halt:
            self._halt.check()
        if self._is_late.is_set():
            raise ActionError(f"git took over {TIMEOUT:g} s for {self._what}", LESS)


def _read(process: subprocess.Popen[bytes], on_output: Callable[[bytes], object]) -> int:
    assert process.stdout is not None
    most, size = limits.PATCH.most, 0
    while piece := os.read(process.stdout.fileno(), _PIECE):
        size += len(piece)
        if size > most:
            raise ActionError(f"the diff is over {most >> 20} MiB, which is the limit", LESS, limits.PATCH.code)
        on_output(piece)
    return size
