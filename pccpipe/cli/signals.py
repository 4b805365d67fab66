"""Signals of the terminal and the system, made into requests to the run's cancel handle."""

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
    """From now on the first INT, TERM or HUP ends the run, and INT, or the same signal again, cuts the grace short.

    What the caller ignores (`nohup`, a shell's background job) stays ignored. Only for the main thread.
    """
    came: SimpleQueue[int] = SimpleQueue()

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as `signal` calls it
        # The handler interrupts the main thread wherever it is, with any lock held: `put` is made for that.
        came.put(number)

    for number in _OBEYED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, note)
    threading.Thread(target=_obey, args=(came, cancel), name="pccpipe-signals", daemon=True).start()


def obey_no_more() -> None:
    """From now on a signal ends the process: the run is over, and all that is left is to wait for a reader."""
    for number in _OBEYED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def _obey(came: SimpleQueue[int], cancel: Cancel) -> None:
    seen: set[int] = set()
    while True:
        number = came.get()
        if not cancel.requested:
            cancel.request(signal.Signals(number).name.removeprefix("SIG"))
        elif number == signal.SIGINT or number in seen:
            cancel.hurry()
        seen.add(number)
