"""Requests from other processes to cancel a run: a file in its folder, a line for each request.

A signal is not enough: the process may be a server with many runs.
"""

from __future__ import annotations

import os
import pwd
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pccpipe.layout import CANCEL_REQUESTS
from pccpipe.record.ticker import TICKER

LOOK_EVERY = 0.5
"""Seconds between two reads of the file."""


def ask_to_cancel(run_dir: Path, by: str) -> None:
    """Add a request. The first one cancels the run, a second one shortens its grace."""
    with (run_dir / CANCEL_REQUESTS).open("a", encoding="utf-8") as file:
        file.write(f"{by} {whoami()}\n")


def whoami() -> str:
    """Return this process's user and machine: `root@vm`."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


@contextmanager
def obeyed(run_dir: Path, obey: Callable[[str, str], None]) -> Iterator[None]:
    """Call `obey(by, who)` for each request within the block; `who` is empty if the request does not say."""
    seen = len(_requests(run_dir))
    is_over = False

    def look() -> None:
        nonlocal seen
        if is_over:
            return
        requests = _requests(run_dir)
        if new := requests[seen:]:
            seen = len(requests)
            # It may take long, and other runs share the ticker.
            threading.Thread(target=obey_all, args=(new,), name="pccpipe-requests", daemon=True).start()
        TICKER.call_in(LOOK_EVERY, look)

    def obey_all(requests: Sequence[str]) -> None:
        for request in requests:
            by, _, who = request.partition(" ")
            obey(by, who)

    TICKER.call_in(LOOK_EVERY, look)
    try:
        yield
    finally:
        is_over = True


def _requests(run_dir: Path) -> list[str]:
    try:
        return (run_dir / CANCEL_REQUESTS).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
