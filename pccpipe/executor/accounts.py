"""Hold the accounts of a run: of each step over all its turns, of the run, and of its project's day."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from msgspec import Struct

from pccpipe.record.agent_events import ModelUsed
from pccpipe.record.step_path import rounds_left_out
from pccpipe.secrets.prices import micros
from pccpipe.secrets.proxy.accounts import BudgetAccount, Money, Payer, SpendLimits
from pccpipe.secrets.proxy.day import DayAccount


class Raised(Struct):
    """The budget of a step, as a person raised it."""

    tokens: int = 0
    usd: float = 0.0

    def above(self, limits: SpendLimits, most: SpendLimits) -> SpendLimits:
        """Return limits that are at least these, raised at most to `most`."""
        return SpendLimits(
            _raised(limits.tokens, self.tokens, most.tokens),
            _raised(limits.micros, micros(self.usd), most.micros),
        )


def _raised(limit: int | None, wanted: int, most: int | None) -> int | None:
    return None if limit is None else max(limit, wanted if most is None else min(wanted, most))


class RunAccounts:
    """The accounts of a run, as its record has them. Safe from many threads.

    Args:
        turns: the use of each turn so far.
        raised: budgets that a person raised, by the step's path without rounds.
    """

    def __init__(self, turns: Iterable[ModelUsed] = (), raised: Mapping[str, Raised] | None = None) -> None:
        self.lock = threading.Condition()
        self.run = BudgetAccount(Payer.RUN)
        self.day: DayAccount | None = None
        """The project's; None if it has no budget of a day."""
        self._raised = dict(raised or {})
        self._steps: dict[str, BudgetAccount] = {}
        for used in turns:
            money = spent_in(used)
            self.run.used += money
            self._step(used.step).used += money

    def of_step(self, path: str, limits: SpendLimits, most: SpendLimits) -> BudgetAccount:
        """Return the account that all turns of a step share; each leg of a matrix has its own.

        Args:
            most: the most that a person may raise the limits to.
        """
        with self.lock:
            account = self._step(path)
            raised = self._raised.get(rounds_left_out(path))
            account.limits = raised.above(limits, most) if raised else limits
            return account

    def close(self) -> None:
        """Close the account of the day. Idempotent."""
        if self.day:
            self.day.close()

    def _step(self, path: str) -> BudgetAccount:
        return self._steps.setdefault(rounds_left_out(path), BudgetAccount(Payer.STEP))


def spent_in(used: ModelUsed) -> Money:
    """Return what a turn took; a call that was under way when its process was killed took its reservation."""
    counts = (used.input_tokens, used.output_tokens, used.estimated_tokens, used.reserved_tokens)
    return Money(sum(max(0, count) for count in counts), micros(used.usd or 0.0) + micros(used.reserved_usd))
