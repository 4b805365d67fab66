"""Run the steps of a group in the order of their needs, as many at once as may be."""

from __future__ import annotations

import functools
import heapq
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

from pccpipe.executor.context import RunContext, StepOutcome, WalkPosition
from pccpipe.executor.input_request import InputState
from pccpipe.executor.turn_end import goes_on, stops_run
from pccpipe.outcome import Outcome
from pccpipe.spec import jinja
from pccpipe.spec.model import Step

_ENDS = frozenset({"outcome", "succeeded", "failed", "exit_code"})


class Needs:
    """The needs of the steps of a group, and the ends so far. One thread uses it."""

    def __init__(self, context: RunContext, steps: Sequence[Step], position: WalkPosition) -> None:
        self._context = context
        self._steps = steps
        self._position = position
        self._index = {step.id: index for index, step in enumerate(steps)}
        self._left = [len(step.needs) for step in steps]
        self._after: list[list[int]] = [[] for _ in steps]
        self._causes: dict[int, set[str]] = {}
        """The steps that did not pass, and that each step depends on."""
        self._held: set[int] = set()
        self.ends: list[StepOutcome | None] = [None] * len(steps)
        for index, step in enumerate(steps):
            for need in step.needs:
                self._after[self._index[need]].append(index)

    def first(self) -> list[int]:
        """Return the steps that need no other."""
        return [index for index, count in enumerate(self._left) if not count]

    def end(self, index: int, ended: StepOutcome) -> list[int]:
        """Note the end of a step, and return those that can start now."""
        self.ends[index] = ended
        if ended.input is InputState.NONE and not goes_on(self._context, self._steps[index], ended):
            self._causes[index] = {self._steps[index].id}
        elif ended.outcome is not Outcome.SKIPPED:
            self._causes.pop(index, None)  # it ran although others failed
        ready = []
        for other in self._after[index]:
            self._left[other] -= 1
            if not self._left[other]:
                ready.append(other)
        return ready

    def held(self, index: int) -> StepOutcome | None:
        """Return the end of a needed step that a resume continues: this step has its turn after that."""
        for need in self._steps[index].needs:
            other = self._index[need]
            ended = self.ends[other]
            if ended and (other in self._held or self._goes_on_later(self._steps[other], ended)):
                self._held.add(index)
                return ended
        return None

    def _goes_on_later(self, step: Step, ended: StepOutcome) -> bool:
        return ended.input is not InputState.NONE or stops_run(self._context, step, self._position, ended)

    def missing(self, index: int) -> list[str]:
        """Return the steps that did not pass and because of which a step must not start; empty: it has its turn.

        An `if:` that reads how a step ended decides itself.
        """
        step = self._steps[index]
        read: set[str] = set()
        if step.condition:
            chains = jinja.references(step.condition.source, is_expression=True)
            read = {chain[1] for chain in chains if chain[0] == "steps" and _ENDS & set(chain[2:3])}
        missing: set[str] = set()
        for need in step.needs:
            causes = self._causes.get(self._index[need], set())
            self._causes.setdefault(index, set()).update(causes)
            if need not in read and not causes <= read:
                missing |= causes
        return sorted(missing, key=lambda name: self._index[name])


def run_in_order(
    needs: Needs, at_once: int, start: Callable[[int], Callable[[], StepOutcome]]
) -> Sequence[StepOutcome | None]:
    """Run all steps; `start` returns the call that runs one, and a step that waits takes no thread."""
    ready = needs.first()
    heapq.heapify(ready)
    if at_once == 1:
        while ready:
            index = heapq.heappop(ready)
            for other in needs.end(index, start(index)()):
                heapq.heappush(ready, other)
        return needs.ends
    over: SimpleQueue[tuple[int, Future[StepOutcome]]] = SimpleQueue()
    running = 0
    with ThreadPoolExecutor(max_workers=at_once, thread_name_prefix="pccpipe-step") as pool:
        while ready or running:
            while ready and running < at_once:
                index = heapq.heappop(ready)
                running += 1
                future = pool.submit(start(index))
                future.add_done_callback(functools.partial(_put, over, index))
            index, future = over.get()
            running -= 1
            for other in needs.end(index, future.result()):
                heapq.heappush(ready, other)
    return needs.ends


def _put(over: SimpleQueue[tuple[int, Future[StepOutcome]]], index: int, done: Future[StepOutcome]) -> None:
    over.put((index, done))
