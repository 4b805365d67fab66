"""Runs git on two folders that strangers filled: for a limited time, in limited memory, its output piece by piece."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from pccpipe import limits
from pccpipe.cancel import Halt
from pccpipe.errors import ActionError

TIMEOUT = 300.0
"""Seconds for git; it is not to hang on what an agent put into a tree."""
LESS = "exclude what is no work (`exclude:` of the upload), or remove it in the step that makes it"
_PIECE = 256 << 10
_SETTINGS = ("-c", "core.autocrlf=false", "-c", "core.attributesFile=/dev/null", "-c", "core.safecrlf=false")
# Data, and not the address space: git maps the files that it compares, which takes no memory of its own.
_BOUNDED = 'ulimit -d "$1" 2>/dev/null; shift; exec "$@"'


def run_git(folder: Path, arguments: Sequence[str], take: Callable[[bytes], object], halt: Halt | None = None) -> int:
    """Give what git writes to `take`, and return how many bytes it was. Raises ActionError, Halted."""
    path = os.environ.get("PATH", os.defpath)
    git = shutil.which("git", path=path)
    if git is None:
        raise ActionError("the diff is made by git, which is not installed here", "install git")
    # Nothing of the user's configuration, nor of a repository around, and no attributes of the trees: bytes are
    # compared.
    env = {
        "PATH": path,
        "LC_ALL": "C",
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        # Whatever is around is no repository of this; a name may have a colon, so no list of folders says it.
        "GIT_DIR": "/nonexistent",
        "GIT_OPTIONAL_LOCKS": "0",
    }
    kib = str(limits.DIFF_MEMORY.most >> 10)
    command = ["sh", "-c", _BOUNDED, "sh", kib, git, *_SETTINGS, *arguments]
    # What it says is short; in a file, nobody has to read it while the patch comes.
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=words
        )
        with _Watch(process, halt):
            size = _read(process, take)
        if process.returncode not in (0, 1):
            words.seek(0)
            said = words.read(4096).decode("utf-8", "replace").strip()
            # Where Xcode's tools are missing, macOS has a git that only says so.
            hint = "xcode-select --install" if said.startswith("xcrun: error") or "xcode-select" in said else LESS
            raise ActionError(f"git could not make the diff: {said or f'exit code {process.returncode}'}", hint)
    return size


class _Watch:
    """Ends git when its time is over, when the run is to end, and when the block ends with an error."""

    def __init__(self, process: subprocess.Popen[bytes], halt: Halt | None) -> None:
        self._process = process
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
            raise ActionError(f"git took over {TIMEOUT:g} s for the diff", LESS)


def _read(process: subprocess.Popen[bytes], take: Callable[[bytes], object]) -> int:
    assert process.stdout is not None
    most, size = limits.PATCH.most, 0
    while piece := os.read(process.stdout.fileno(), _PIECE):
        size += len(piece)
        if size > most:
            raise ActionError(f"the diff is over {most >> 20} MiB, which is the limit", LESS, limits.PATCH.code)
        take(piece)
    return size
