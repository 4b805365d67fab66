"""Turns signals of the terminal and the system into cancels of the run."""

from __future__ import annotations

import signal
import threading
from queue import SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pccpipe.cancel import Cancel

_OBEYED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def obey_signals(cancel: Cancel) -> None:
    """Cancel the run at the first INT, TERM or HUP; INT, or the same signal again, shortens the grace.

    A signal that the caller ignores (`nohup`, a shell's background job) stays ignored. Only for the main thread.
    """
    received: SimpleQueue[int] = SimpleQueue()

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as `signal` calls it
        # The handler interrupts the main thread, which may hold any lock: `put` is safe there.
        received.put(number)

    for number in _OBEYED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handle)
    threading.Thread(target=_obey, args=(received, cancel), name="pccpipe-signals", daemon=True).start()


def stop_obeying() -> None:
    """Let signals end the process: the run has ended, and only a slow reader keeps the process."""
    for number in _OBEYED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def _obey(received: SimpleQueue[int], cancel: Cancel) -> None:
    seen: set[int] = set()
    while True:
        number = received.get()
        if not cancel.requested:
            cancel.request(signal.Signals(number).name.removeprefix("SIG"))
        elif number == signal.SIGINT or number in seen:
            cancel.hurry()
        seen.add(number)
