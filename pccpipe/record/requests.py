"""Asking a run's process to end, from another one: a file in the run's folder, a line for each time that it is asked.

No signal: the process may be a server that runs many.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CANCEL = "cancel-requests"
LOOK_EVERY = 0.5
"""Seconds between two looks at the file."""


def ask_to_cancel(run_dir: Path, by: str) -> None:
    """Ask once more. The first time the run is cancelled, after that its grace is cut short."""
    with (run_dir / CANCEL).open("a", encoding="utf-8") as file:
        file.write(f"{by}\n")


@contextmanager
def obeyed(run_dir: Path, obey: Callable[[str], None]) -> Iterator[None]:
    """Within the block, `obey(by)` is called for each request that comes."""
    over = threading.Event()
    seen = len(_requests(run_dir))

    def look() -> None:
        count = seen
        while not over.wait(LOOK_EVERY):
            requests = _requests(run_dir)
            for by in requests[count:]:
                obey(by)
            count = max(count, len(requests))

    thread = threading.Thread(target=look, name="pccpipe-requests", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()


def _requests(run_dir: Path) -> list[str]:
    try:
        return (run_dir / CANCEL).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
