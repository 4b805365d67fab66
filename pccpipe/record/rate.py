"""Bounds the events that a stranger can cause at will, by kind and step: a million calls make few lines."""

from __future__ import annotations

import time
from collections import Counter

from pccpipe import limits
from pccpipe.record.agent_events import ModelUsed
from pccpipe.record.events import CommandEnded, Happening, StepEnded, Warned
from pccpipe.record.run_events import RunEnded, RunStopped, RunWaiting

EVERY = 1.0
"""Seconds between two accounts of a model's use, once there were many. Each includes those before it."""


class Rate:
    """Decides which events are written. Counts surplus warnings, and keeps the last account of a model's use."""

    def __init__(self) -> None:
        self._seen: Counter[tuple[type[Happening], str]] = Counter()
        self._left_out: Counter[str] = Counter()
        self._last: dict[str, float] = {}
        self._held: dict[str, ModelUsed] = {}

    def pass_on(self, what: Happening) -> list[Happening]:
        """Return the events to write now, in place of this one."""
        match what:
            case ModelUsed(step=step):
                return self._account(what, step)
            case Warned(step=step):
                return self._warning(what, step or "")
            case CommandEnded(step=step) | StepEnded(step=step):
                return [*self._end_of(step), what]
            case RunEnded() | RunStopped() | RunWaiting():
                steps = dict.fromkeys([*self._held, *self._left_out])
                return [*(each for step in steps for each in self._end_of(step)), what]
            case _:
                return [what]

    def _account(self, what: ModelUsed, step: str) -> list[Happening]:
        now = time.monotonic()
        self._seen[ModelUsed, step] += 1
        if self._seen[ModelUsed, step] > limits.MODEL_EVENTS.most and now < self._last.get(step, 0.0) + EVERY:
            self._held[step] = what
            return []
        self._held.pop(step, None)
        self._last[step] = now
        return [what]

    def _warning(self, what: Warned, step: str) -> list[Happening]:
        self._seen[Warned, step] += 1
        if self._seen[Warned, step] > limits.WARNINGS.most:
            self._left_out[step] += 1
            return []
        return [what]

    def _end_of(self, step: str) -> list[Happening]:
        rest: list[Happening] = []
        if (account := self._held.pop(step, None)) is not None:
            rest.append(account)
        if count := self._left_out.pop(step, 0):
            rest.append(
                Warned(f"{count} more warnings are left out: there were over {limits.WARNINGS.most}", step or None)
            )
        return rest
