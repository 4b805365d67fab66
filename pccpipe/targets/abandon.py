"""Leaves a call alone that waits for a machine, when the run is cancelled or its time is over."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, wait
from typing import TypeVar

from pccpipe.errors import Halted
from pccpipe.targets.machine import Halt

T = TypeVar("T")


def unless_halted(
    halt: Halt, do: Callable[[], T], *, grace: float = 0.0, undo: Callable[[T], object] = lambda _: None
) -> T:
    """Do what may wait long for a machine, in a thread of its own that a halt leaves alone. Raises `Halted`.

    A halt that came before lets it be done: who ends a run needs its machine, too.

    Args:
        grace: seconds for which a halt still waits.
        undo: takes back what was done after that.
    """
    if halt.requested:
        return do()
    done: Future[T] = Future()
    over = threading.Event()

    def work() -> None:
        try:
            result = do()
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            with contextlib.suppress(InvalidStateError):
                done.set_exception(error)
        else:
            try:
                done.set_result(result)
            except InvalidStateError:
                undo(result)
        over.set()

    with halt.watched_by(over.set):
        threading.Thread(target=work, name="pccpipe-reach", daemon=True).start()
        over.wait()
    if grace and not done.done():
        wait([done], grace)
    with contextlib.suppress(InvalidStateError):
        done.set_exception(Halted("halted while it waited for a machine"))
    return done.result()
