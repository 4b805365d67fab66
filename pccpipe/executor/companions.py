"""Begin the background commands of a sequence of steps, and end them with it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future

from msgspec.structs import replace

from pccpipe.executor.background import WITH_GROUP, Background
from pccpipe.executor.context import RunContext, StepOutcome, WalkPosition
from pccpipe.executor.input_request import InputState
from pccpipe.executor.turn_end import goes_on
from pccpipe.outcome import Outcome
from pccpipe.record.events import BackgroundReady
from pccpipe.spec.model import Run, Step

TakeTurn = Callable[[RunContext, Step, WalkPosition], StepOutcome]

_YIELDING = frozenset({Outcome.SUCCEEDED, Outcome.SKIPPED, Outcome.FAILED, Outcome.TIMED_OUT, Outcome.LOST})
"""The outcomes of a sequence that the failure of a background command replaces: it came first."""


class _Companion:
    """A background command of the sequence, which another thread follows."""

    def __init__(self, step: Step, background: Background, epoch: int | None) -> None:
        self.step = step
        self.background = background
        self.epoch = epoch
        """Of its turn in the record; None if it begins now."""
        self.done: Future[StepOutcome] = Future()


class Companions:
    """The background commands of one sequence."""

    def __init__(self, context: RunContext, take_turn: TakeTurn) -> None:
        self._context = context
        self._take_turn = take_turn
        self._all: list[_Companion] = []
        self._stack = contextlib.ExitStack()

    def begin(self, step: Step, position: WalkPosition) -> StepOutcome:
        """Begin a background command, and wait until it is ready; return its outcome if it ended before that."""
        path = position.path_of(step.id)
        cancel = self._stack.enter_context(self._context.cancel.child())
        background = Background(cancel, self._context.cancel)
        coming = self._context.replay.coming(path)
        one = _Companion(step, background, coming.epoch if coming else None)
        if coming and coming.ended and coming.all_of(BackgroundReady):
            # It ended in an earlier process, perhaps during a later step, which the record has then.
            background.is_ready = True
        self._all.append(one)
        context = replace(self._context, cancel=cancel)
        inside = replace(position, background=background)

        def follow() -> None:
            try:
                one.done.set_result(self._take_turn(context, step, inside))
            except BaseException as error:  # noqa: BLE001 - raised again where the sequence ends
                one.done.set_exception(error)
            background.settled.set()
            background.followed.set()

        threading.Thread(target=follow, name="pccpipe-background", daemon=True).start()
        background.settled.wait()
        if background.is_ready:
            return StepOutcome(Outcome.SUCCEEDED)
        return one.done.result()

    def around(self, position: WalkPosition) -> WalkPosition:
        """Return the position of a step beside the commands that began so far."""
        paths = (position.path_of(one.step.id) for one in self._all)
        return replace(position, beside=(*position.beside, *paths)) if self._all else position

    def failed_before(self, step: Step, position: WalkPosition) -> StepOutcome | None:
        """Return the failure of a background command that ends the sequence before a step.

        A turn that an earlier process began is always finished.
        """
        for one in self._all:
            if (failure := self._failure(one)) is None:
                continue
            coming = self._context.replay.coming(position.path_of(step.id))
            if coming is None or coming.epoch != one.epoch:
                return failure
        return None

    def end_with(self, ended: StepOutcome) -> StepOutcome:
        """End the commands with their sequence; return its outcome, to which theirs may add."""
        early = next(filter(None, (self._failure(one) for one in self._all)), None)
        self.end()
        late = next(filter(None, (self._failure(one) for one in self._all)), None)
        if ended.input is not InputState.NONE or ended.outcome not in _YIELDING:
            return ended
        if ended.outcome in {Outcome.SUCCEEDED, Outcome.SKIPPED}:
            return early or late or ended
        return early or ended

    def end(self) -> None:
        """End the commands, and wait for them. Raises what ended their turns: LeftOpen, RecordFull, a bug."""
        with self._stack:
            if not self._context.room.is_missing:
                for one in reversed(self._all):
                    # A resumed run may still look for it on its machine.
                    one.background.followed.wait()
                    one.background.cancel.request(WITH_GROUP)
            for one in self._all:
                one.done.result()

    def _failure(self, one: _Companion) -> StepOutcome | None:
        if not one.done.done() or one.done.exception() is not None:
            return None
        ended = one.done.result()
        return None if goes_on(self._context, one.step, ended) else replace(ended, at=one.step.id)


@contextlib.contextmanager
def companions(context: RunContext, take_turn: TakeTurn) -> Iterator[Companions]:
    """End the background commands of a sequence also if it ends by an exception."""
    made = Companions(context, take_turn)
    try:
        yield made
    except BaseException:
        with contextlib.suppress(Exception):
            made.end()
        raise


def is_background(step: Step) -> bool:
    """Say whether a step's command runs beside the next steps."""
    return isinstance(step.body, Run) and step.body.background
