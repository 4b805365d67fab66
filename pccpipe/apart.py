"""Does a piece of work on a stranger's data in a process of its own, with limits for time and memory.

For what could hold the interpreter lock for long or take all memory here: a large request, a regular expression of an
author's on a text of an agent's. Starting the process costs about 40 ms.
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
    """Give what `work` makes of the data, in pieces.

    Args:
        work: a function of a module, found there by its name.
        pieces: the data; not joined here.
        where: names the data in messages.
        most: the seconds of processor time that it may take; its memory is bounded by `limits.APART_MEMORY`.

    Raises LimitExceeded; ValueError with what the work's own ValueError says.
    """
    # Imported here: most runs need none of it.
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
    # Twice the processor time, and a little: the machine may be busy.
    watchdog = threading.Timer(2 * most.most + 5, process.kill)
    watchdog.daemon = True
    watchdog.start()
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    assert stdin is not None
    assert stdout is not None
    assert stderr is not None
    said: list[bytes] = []
    complaints: list[bytes] = []
    try:
        listeners = [
            threading.Thread(target=_collect, args=(stdout, said), daemon=True),
            threading.Thread(target=_collect, args=(stderr, complaints), daemon=True),
        ]
        for listener in listeners:
            listener.start()
        with contextlib.suppress(BrokenPipeError):
            for piece in pieces:
                for at in range(0, len(piece), _PIECE):
                    stdin.write(piece[at : at + _PIECE])
        with contextlib.suppress(BrokenPipeError):
            stdin.close()
        for listener in listeners:
            listener.join()
        code = process.wait()
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
        for pipe in (stdin, stdout, stderr):
            with contextlib.suppress(OSError):
                pipe.close()
    if code == 0:
        return said
    words = b"".join(complaints).decode("utf-8", "replace")
    if code == _FAILED:
        raise ValueError(words)
    if code < 0:
        raise LimitExceeded(most, f"the time for reading {where}")
    raise LimitExceeded(limits.APART_MEMORY, f"the memory for reading {where}")


def child() -> None:
    """Do the work, as the process that `apart` starts."""
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
