"""Does work on a stranger's data in a process of its own, with limits for time and memory.

Used where the work could hold the interpreter lock for long or take all memory: a large request, or an author's regular
expression on an agent's text. Starting the process costs about 40 ms.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

from pccpipe import limits
from pccpipe.errors import LimitExceeded
from pccpipe.limits import Limit

_PIECE = 64 << 10
_ROOT = str(Path(__file__).resolve().parent.parent)
_CHILD = "import sys; sys.path[:] = sys.argv[4:]; from pccpipe.apart import child; child()"
_FAILED = 3

Work = Callable[[bytes], bytes]


def apart(work: Work, pieces: Iterable[bytes], where: str, most: Limit = limits.APART_SECONDS) -> list[bytes]:
    """Return the result of `work` on the data, in pieces.

    Args:
        work: a function of a module, which the process finds by its name.
        pieces: the data; not joined here.
        where: names the data in messages.
        most: the limit of its processor time; `limits.APART_MEMORY` bounds its memory.

    Raises LimitExceeded, and ValueError with the words of the work's own.
    """
    # Most runs do not need this import.
    import subprocess

    paths = [_ROOT, *(path for path in sys.path if Path(path).is_absolute())]
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", _CHILD, work.__module__, work.__qualname__, str(most.most), *paths],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        close_fds=True,
    )
    # Twice the processor time and some seconds: the machine may be busy.
    watchdog = threading.Timer(2 * most.most + 5, process.kill)
    watchdog.daemon = True
    watchdog.start()
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    assert stdin is not None
    assert stdout is not None
    assert stderr is not None
    output: list[bytes] = []
    errors: list[bytes] = []
    try:
        readers = [
            threading.Thread(target=_collect, args=(stdout, output), daemon=True),
            threading.Thread(target=_collect, args=(stderr, errors), daemon=True),
        ]
        for reader in readers:
            reader.start()
        with contextlib.suppress(BrokenPipeError):
            for piece in pieces:
                for at in range(0, len(piece), _PIECE):
                    stdin.write(piece[at : at + _PIECE])
        with contextlib.suppress(BrokenPipeError):
            stdin.close()
        for reader in readers:
            reader.join()
        code = process.wait()
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
        for pipe in (stdin, stdout, stderr):
            with contextlib.suppress(OSError):
                pipe.close()
    if code == 0:
        return output
    words = b"".join(errors).decode("utf-8", "replace")
    if code == _FAILED:
        raise ValueError(words)
    if code < 0:
        raise LimitExceeded(most, f"the time for reading {where}")
    raise LimitExceeded(limits.APART_MEMORY, f"the memory for reading {where}")


def child() -> None:
    """Do the work in the process that `apart` starts."""
    module, name, seconds = sys.argv[1:4]
    work: Work = getattr(importlib.import_module(module), name)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))
    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (limits.APART_MEMORY.most, limits.APART_MEMORY.most))
    try:
        made = work(sys.stdin.buffer.read())
    except ValueError as error:
        sys.stderr.write(str(error)[:4000])
        sys.stderr.flush()
        os._exit(_FAILED)
    except (MemoryError, RecursionError):
        os._exit(1)
    sys.stdout.buffer.write(made)
    sys.stdout.flush()
    os._exit(0)


def _collect(pipe: IO[bytes], into: list[bytes]) -> None:
    while piece := pipe.read(_PIECE):
        into.append(piece)
