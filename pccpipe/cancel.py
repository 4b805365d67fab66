"""Ends work early: a cancel from outside, a deadline, and a halt, which is either of them.

Code that waits takes a `Halt`: commands, transfers and builds.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import contextmanager
from typing import TypeVar

from msgspec import Struct

from pccpipe.errors import Halted

T = TypeVar("T")

GRACE = 10.0
"""Seconds between TERM and KILL, unless a person hurries."""
HURRIED_GRACE = 0.5


class Cancel:
    """Asks a run to end. Safe from any thread and from a signal handler.

    The first `request` ends the running commands (TERM, and KILL after the grace); the `always:` steps still run.
    `hurry` shortens the grace, also of an `always:` step that runs by then; containers are removed even so.
    """

    def __init__(self) -> None:
        # Reentrant: a signal handler runs in the main thread, which may be inside one of these methods.
        self._lock = threading.RLock()
        self._requested = threading.Event()
        self._watchers: list[Callable[[float], None]] = []
        self._inner: list[Cancel] = []
        self.by = ""
        self.who = ""
        self.why = ""
        self.hurried = False

    @property
    def requested(self) -> bool:
        return self._requested.is_set()

    @property
    def grace(self) -> float:
        return HURRIED_GRACE if self.hurried else GRACE

    @property
    def message(self) -> str:
        """Say that this was cancelled, and why if it is known."""
        return f"cancelled: {self.why}" if self.why else "cancelled"

    def request(self, by: str = "caller", who: str = "", why: str = "") -> None:
        """End the run, or the part of it that has this handle.

        Args:
            by: a signal's name (`INT`, `TERM`, `HUP`) or a word of the caller.
            who: the user and machine that asks, `root@vm`, if known.
            why: the cause, for messages, if it lies in the run itself.
        """
        with self._lock:
            if not self.requested:
                self.by, self.who, self.why = by, who, why
                self._requested.set()
            watchers = list(self._watchers)
        for watcher in watchers:
            watcher(self.grace)

    def hurry(self) -> None:
        """Shorten the grace of the commands that are ending; also request, if nobody did."""
        with self._lock:
            self.hurried = True
            inner = list(self._inner)
        self.request()
        for cancel in inner:
            cancel.hurry()

    @contextmanager
    def shield(self) -> Iterator[Cancel]:
        """Yield a handle that only a later `hurry` requests: for a step that must run after a cancel."""
        inner = Cancel()
        with self._lock:
            self._inner.append(inner)
        try:
            yield inner
        finally:
            with self._lock:
                self._inner.remove(inner)

    @contextmanager
    def child(self) -> Iterator[Cancel]:
        """Yield a handle for a part of the run: all that is asked of this one reaches it, and nothing goes back."""
        with self.shield() as inner, self.watched_by(lambda _: inner.request(self.by, self.who, self.why)):
            if self.hurried:
                inner.hurry()
            yield inner

    def wait(self, seconds: float) -> bool:
        """Sleep for `seconds`, or until a request; return True if there is one."""
        return self._requested.wait(seconds)

    @contextmanager
    def watched_by(self, watcher: Callable[[float], None]) -> Iterator[None]:
        """Call `watcher(grace)` at each request within the block, and at once if there was one before."""
        with self._lock:
            self._watchers.append(watcher)
            late = self.requested
        if late:
            watcher(self.grace)
        try:
            yield
        finally:
            with self._lock:
                self._watchers.remove(watcher)


class Deadline(Struct, frozen=True):
    """A moment on the monotonic clock, and its owner."""

    at: float
    owner: str
    """`step`, `pipeline`, or the path of the group that has the timeout: for the message."""
    seconds: float

    @staticmethod
    def after(seconds: float, owner: str) -> Deadline:
        return Deadline(time.monotonic() + seconds, owner, seconds)

    def nearest(self, other: Deadline | None) -> Deadline:
        return self if other is None or self.at <= other.at else other

    @property
    def left(self) -> float:
        return max(0.0, self.at - time.monotonic())

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self.at

    @property
    def message(self) -> str:
        return f"the time limit of {self.owner} ({self.seconds:g} s) has passed"


class Halt:
    """The end of work that is not done: at the run's cancel, or when its time is over."""

    def __init__(self, cancel: Cancel, deadline: Deadline | None = None) -> None:
        self.cancel = cancel
        self.deadline = deadline

    @property
    def requested(self) -> bool:
        return self.cancel.requested or (self.deadline is not None and self.deadline.passed)

    @property
    def message(self) -> str:
        return self.cancel.message if self.cancel.requested or self.deadline is None else self.deadline.message

    def check(self) -> None:
        """Raise Halted if a halt was requested."""
        if self.requested:
            raise Halted(self.message)

    def wait(self, seconds: float) -> None:
        """Sleep, or raise Halted as soon as a halt is requested."""
        self.cancel.wait(min(seconds, self.deadline.left) if self.deadline else seconds)
        self.check()

    @contextmanager
    def watched_by(self, watcher: Callable[[], None]) -> Iterator[None]:
        """Call `watcher`, from another thread, when a halt is requested within the block; at once if it was before."""
        timer = threading.Timer(self.deadline.left, watcher) if self.deadline else None
        with self.cancel.watched_by(lambda _: watcher()):
            try:
                if timer:
                    timer.daemon = True
                    timer.start()
                yield
            finally:
                if timer:
                    timer.cancel()


def unless_halted(
    halt: Halt, do: Callable[[], T], *, grace: float = 0.0, undo: Callable[[T], object] = lambda _: None
) -> T:
    """Call `do`, which may wait long for a machine, in a thread that a halt does not interrupt. Raises `Halted`.

    A halt that was requested before has no effect: ending a run needs its machine, too.

    Args:
        grace: seconds to wait for `do` after a halt.
        undo: called with a result that comes after that.
    """
    if halt.requested:
        return do()
    done: Future[T] = Future()
    over = threading.Event()

    def work() -> None:
        try:
            result = do()
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
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
