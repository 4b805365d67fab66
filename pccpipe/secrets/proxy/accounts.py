"""Hold what may be spent on a model: by a turn, a step, a run, and a project in a day."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from msgspec import Struct

from pccpipe.secrets.prices import MICROS
from pccpipe.words import money


class Money(Struct, frozen=True):
    """Tokens, and the money that they cost by estimate."""

    tokens: int = 0
    micros: int = 0
    """Millionths of a USD."""

    def __add__(self, other: Money) -> Money:
        return Money(self.tokens + other.tokens, self.micros + other.micros)

    def __sub__(self, other: Money) -> Money:
        return Money(self.tokens - other.tokens, self.micros - other.micros)


class SpendLimits(Struct, frozen=True):
    """The most that may be spent; None for no limit."""

    tokens: int | None = None
    micros: int | None = None


class Payer(StrEnum):
    """The holder of an account; the value names it in a sentence."""

    TURN = "this turn's max_tokens"
    STEP = "the step's budget"
    RUN = "the run's budget"
    DAY = "the project's budget of the day"


class BudgetAccount:
    """What one payer may spend and has spent. Its meters change it, under the one lock of the run."""

    def __init__(self, payer: Payer, limits: SpendLimits = SpendLimits(), used: Money = Money()) -> None:  # noqa: B008  frozen
        self.payer = payer
        self.limits = limits
        self.used = used
        self.reserved = Money()
        self.calls = 0
        """The number of calls under way."""

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep others from changing it, also other processes. Raises OSError."""
        yield

    @property
    def has_others(self) -> bool:
        """Calls of other processes are under way, as of the last `held`."""
        return False

    @property
    def is_limited(self) -> bool:
        return self.limits.tokens is not None or self.limits.micros is not None

    @property
    def left_tokens(self) -> int:
        limit = self.limits.tokens
        return sys.maxsize if limit is None else max(0, limit - self.used.tokens - self.reserved.tokens)

    @property
    def left_micros(self) -> int:
        limit = self.limits.micros
        return sys.maxsize if limit is None else max(0, limit - self.used.micros - self.reserved.micros)

    @property
    def is_overdrawn(self) -> bool:
        """More is used than its limit."""
        tokens, micros = self.limits.tokens, self.limits.micros
        return (tokens is not None and self.used.tokens > tokens) or (micros is not None and self.used.micros > micros)

    @property
    def words(self) -> Iterator[str]:
        """Yield what is used of each limit."""
        if self.limits.tokens is not None:
            unit = "" if self.payer is Payer.TURN else " tokens"
            yield f"{self.used.tokens:,} of {self.payer} of {self.limits.tokens:,}{unit}"
        if self.limits.micros is not None:
            yield f"about {money(self.used.micros / MICROS)} of {self.payer} of {money(self.limits.micros / MICROS)}"

    def reserve(self, amount: Money) -> str:
        """Reserve an amount for a call; return what `settle` must know about it. Raises OSError."""
        self.reserved += amount
        self.calls += 1
        return ""

    def settle(self, reserved: Money, used: Money, of: str) -> None:  # noqa: ARG002
        """Replace a reservation by what the call took; `of` is what `reserve` returned."""
        self.reserved -= reserved
        self.used += used
        self.calls -= 1
