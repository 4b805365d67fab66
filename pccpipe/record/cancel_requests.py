"""Asking a run's process to end, from another one: a file in the run's folder, a line for each time that it is asked.

No signal: the process may be a server that runs many.
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
"""Seconds between two looks at the file."""


def ask_to_cancel(run_dir: Path, by: str) -> None:
    """Ask once more. The first time the run is cancelled, after that its grace is cut short."""
    with (run_dir / CANCEL_REQUESTS).open("a", encoding="utf-8") as file:
        file.write(f"{by} {whoami()}\n")


def whoami() -> str:
    """Name this process's user and machine: `root@vm`."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


@contextmanager
def obeyed(run_dir: Path, obey: Callable[[str, str], None]) -> Iterator[None]:
    """Within the block, `obey(by, who)` is called for each request that comes; `who` is empty if it does not say."""
    seen = len(_requests(run_dir))
    is_over = False

    def look() -> None:
        nonlocal seen
        if is_over:
            return
        requests = _requests(run_dir)
        if new := requests[seen:]:
            seen = len(requests)
            # To obey may take long, and other runs have the ticker as well.
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
