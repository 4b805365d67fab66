"""Counts the use of a model by a step, and holds it to the budgets of the step, its run and its project."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from msgspec import Struct, field
from msgspec.structs import replace

from pccpipe.errors import PccpipeError
from pccpipe.secrets.prices import MICROS, Price, Prices, load_prices
from pccpipe.secrets.proxy.accounts import BudgetAccount, Money, Payer, SpendLimits
from pccpipe.secrets.proxy.usage import Tokens
from pccpipe.words import money as in_words

LONGEST_ANSWER = 128_000
"""The tokens of an answer whose request names no limit, if there is a budget: no model gives more."""
SHORTEST_ANSWER = 16
"""Tokens; OpenAI's API refuses a lower limit for an answer."""
TURN_LIMIT = 600.0
"""Seconds that a call waits for calls under way if not all fit at the same time."""
OTHERS_LIMIT = 120.0
"""Seconds that it waits likewise for those of other processes, which may be stopped."""


class ModelUse(Struct, frozen=True):
    """The use of a model by a turn of a step so far."""

    calls: int = 0
    """The calls that reached the API."""
    refused: int = 0
    """The calls that arrived when a budget was used up."""
    tokens: Tokens = field(default_factory=Tokens)
    micros: int | None = 0
    """Their price by estimate; None if a model without a price was called."""
    reserved: int = 0
    """The tokens of the calls under way."""
    reserved_micros: int = 0
    refused_by: str = ""
    """The limit that refused the last of them: `step.usd`; `prices` for a model without a price."""


class WantedCall(Struct, frozen=True):
    """A call before it is made."""

    most_input: int
    """The most tokens of its input."""
    likely_input: int
    output: int | None = None
    """The tokens that it wants for each answer; None if it does not say."""
    choices: int = 1
    """The number of answers that it wants."""
    model: str = ""
    shortest: int = SHORTEST_ANSWER
    """The least room for its answer; with less, the API would refuse the call."""


class Reservation(Struct, frozen=True):
    """The tokens and the money that a call under way may take."""

    tokens: int = 0
    output: int | None = None
    """The most tokens that its answer may have; None for no limit."""
    micros: int = 0
    likely_input: int = 0
    price: Price | None = None
    is_free: bool = False
    """Such a call asks no model, so it costs nothing."""
    of: tuple[str, ...] = ()
    """What each account must know to settle it."""
    number: int = 0
    """Two calls of a meter may take the same."""

    @property
    def money(self) -> Money:
        return Money(self.tokens, self.micros)

    def cost(self, tokens: Tokens) -> int | None:
        """Return the price of what the call took, in millionths of a USD; None without a price."""
        if self.is_free or not tokens.total:
            return 0
        if self.price is None:
            return None
        if tokens.estimated and tokens.total == self.tokens:
            return self.micros  # all of the reservation
        return self.price.of(tokens, self.likely_input)


class BudgetExceededError(PccpipeError):
    """The rest of a budget does not suffice for a call."""


class Meter:
    """Counts what one turn of a step takes, over all of its attempts. Safe from many threads.

    Reserves tokens and money before a call and settles them after it. Calls run at the same time only while the most
    that they can take fits into the rest of each account; otherwise one after another. So together they cannot exceed
    a limit. A call that runs alone exceeds it only if its input has more than a token for each four bytes.

    Args:
        limit: the tokens that the turn may use; None for no limit.
        used: the use until an earlier process of the run was killed.
        on_use: receives the use after each call.
        accounts: of the step, its run and its project; their `used` includes this turn's.
        lock: of all meters that share an account.
        prices: the prices of models.
    """

    def __init__(
        self,
        limit: int | None,
        used: ModelUse,
        on_use: Callable[[ModelUse], None],
        accounts: Sequence[BudgetAccount] = (),
        lock: threading.Condition | None = None,
        prices: Prices | None = None,
    ) -> None:
        self.limit = limit
        # A call that was under way when the process was killed cost something; its tokens are unknown.
        tokens = replace(used.tokens, estimated=used.tokens.estimated + used.reserved)
        micros = None if used.micros is None else used.micros + used.reserved_micros
        self._used = replace(used, tokens=tokens, micros=micros, reserved=0, reserved_micros=0)
        turn = BudgetAccount(Payer.TURN, SpendLimits(limit), Money(tokens.total, micros or 0))
        self.accounts = (turn, *accounts)
        self._on_use = on_use
        self._lock = lock or threading.Condition()
        self._prices = prices
        self._open: dict[int, Reservation] = {}
        self._numbers = itertools.count(1)
        self._refusers: set[str] = set()

    @property
    def used(self) -> ModelUse:
        return self._used

    @property
    def is_limited(self) -> bool:
        return any(account.is_limited for account in self.accounts)

    @property
    def has_usd_limit(self) -> bool:
        return any(account.limits.micros is not None for account in self.accounts)

    @property
    def is_overdrawn(self) -> bool:
        """The use exceeds a limit."""
        return any(account.is_overdrawn for account in self.accounts)

    @property
    def left(self) -> int:
        """The tokens that are neither used nor reserved."""
        return min(account.left_tokens for account in self.accounts)

    @property
    def account(self) -> str:
        """What is used of each limit, in words."""
        return f"{' and '.join(words for account in self.accounts for words in account.words)} are used"

    def reserve_nothing(self) -> Reservation:
        """Reserve nothing, for a call that asks no model."""
        with self._lock:
            return self._take(Reservation(is_free=True))

    def reserve(self, wanted: WantedCall, is_over: Callable[[], bool]) -> Reservation:
        """Reserve what a call may take; wait for calls under way if necessary.

        Raises BudgetExceededError; ConnectionResetError if its step ends, or its client leaves, while it waits.

        Args:
            is_over: says that its step has ended; raises ConnectionResetError if its client left.
        """
        price = self._price_of(wanted.model)
        if not self.is_limited:
            with self._lock:
                return self._take(Reservation(0, wanted.output, 0, wanted.likely_input, price))
        now = time.monotonic()
        until, until_alone = now + TURN_LIMIT, now + OTHERS_LIMIT
        while True:
            with self._lock:
                with self._held():
                    if reservation := self._fitting(wanted, price):
                        return self._take(reservation)
                    limited = [account for account in self.accounts if account.is_limited]
                    is_shared = any(account.has_others for account in limited) and time.monotonic() < until_alone
                    if not is_shared and not any(account.calls for account in limited):
                        return self._take(self._rest(wanted, price))
                if time.monotonic() > until:
                    raise self._refusal(wanted, price)
                self._lock.wait(0.2)
            if is_over():
                raise ConnectionResetError("nobody wants the call any more")  # no budget refused it

    def settle(self, reservation: Reservation, tokens: Tokens) -> None:
        """Replace the reservation of a finished call by what it took."""
        with self._lock:
            if reservation.number in self._open:
                self._end(reservation, tokens, reservation.cost(tokens))
                self._used = replace(self._used, calls=self._used.calls + 1)
                self._on_use(self._used)

    def forfeit(self) -> None:
        """Count all reservations as used: nobody will learn what the calls under way take."""
        with self._lock:
            has_more = bool(self._used.reserved or self._used.reserved_micros)
            for reservation in tuple(self._open.values()):
                self._end(reservation, Tokens(estimated=reservation.tokens), reservation.micros)
            if has_more:
                self._on_use(self._used)

    def _end(self, reservation: Reservation, tokens: Tokens, micros: int | None) -> None:
        del self._open[reservation.number]
        took = Money(tokens.total, micros or 0)
        for account, of in zip(self.accounts, reservation.of, strict=True):
            account.settle(reservation.money, took, of)
        used = self._used
        both = None if used.micros is None or micros is None else used.micros + micros
        self._used = replace(
            used,
            tokens=used.tokens + tokens,
            micros=both,
            reserved=used.reserved - reservation.tokens,
            reserved_micros=used.reserved_micros - reservation.micros,
        )
        self._lock.notify_all()

    def _price_of(self, model: str) -> Price | None:
        price = (self._prices or load_prices()).of(model)
        if price is None and self.has_usd_limit:
            named = f"the model {model[:100]!r} has no price" if model else "the request names no model"
            raise self._refused("prices", f"{named}, and a budget is in USD")
        return price

    @contextmanager
    def _held(self) -> Iterator[None]:
        with ExitStack() as stack:
            try:
                for account in self.accounts:
                    stack.enter_context(account.held())
            except OSError as error:
                raise self._unkept(error) from error
            yield

    def _unkept(self, error: OSError) -> BudgetExceededError:
        return self._refused("day", f"the account of the project's day cannot be kept: {error.strerror or error}")

    def _fitting(self, wanted: WantedCall, price: Price | None) -> Reservation | None:
        """Return the reservation of the most that a call can take, if it fits."""
        output = min(wanted.output or LONGEST_ANSWER, LONGEST_ANSWER)
        tokens = wanted.most_input + output * wanted.choices
        micros = price.most(wanted.most_input, output * wanted.choices) if price else 0
        if tokens > self.left or micros > self._left_micros:
            return None
        return Reservation(tokens, output, micros, wanted.likely_input, price)

    def _rest(self, wanted: WantedCall, price: Price | None) -> Reservation:
        """Return the reservation of a call that runs alone, with a shorter answer. Raises BudgetExceededError."""
        room = min(self._room(wanted, price).values())
        if room < wanted.shortest:
            raise self._refusal(wanted, price)
        output = min(wanted.output or LONGEST_ANSWER, LONGEST_ANSWER, room)
        tokens = wanted.most_input + output * wanted.choices
        micros = price.most(wanted.most_input, output * wanted.choices) if price else 0
        return Reservation(min(self.left, tokens), output, min(self._left_micros, micros), wanted.likely_input, price)

    @property
    def _left_micros(self) -> int:
        return min(account.left_micros for account in self.accounts)

    def _room(self, wanted: WantedCall, price: Price | None) -> dict[str, int]:
        """Return the longest answers that each limit has room for."""
        room = {}
        for account in self.accounts:
            name = account.payer.name.lower()
            room[f"{name}.tokens"] = (account.left_tokens - wanted.likely_input) // wanted.choices
            if price and price.output:
                left = account.left_micros - price.most(wanted.likely_input, 0)
                room[f"{name}.usd"] = int(left / price.output / wanted.choices)
        return room

    def _take(self, reservation: Reservation) -> Reservation:
        try:
            # The day's account first: it may fail.
            of = [account.reserve(reservation.money) for account in reversed(self.accounts)]
        except OSError as error:
            raise self._unkept(error) from error
        reservation = replace(reservation, of=tuple(reversed(of)), number=next(self._numbers))
        self._open[reservation.number] = reservation
        if reservation.tokens or reservation.micros:
            used = self._used
            self._used = replace(
                used,
                reserved=used.reserved + reservation.tokens,
                reserved_micros=used.reserved_micros + reservation.micros,
            )
            # Recorded before the call, so that a kill in between does not make the call free.
            self._on_use(self._used)
        return reservation

    def _refusal(self, wanted: WantedCall, price: Price | None) -> BudgetExceededError:
        room = self._room(wanted, price)
        by = min(room, key=lambda name: room[name])
        needs = f"{wanted.likely_input + wanted.shortest:,} tokens"
        if by.endswith("usd") and price:
            needs = in_words(price.most(wanted.likely_input, wanted.shortest) / MICROS)
        return self._refused(by, f"{self.account}; the call needs about {needs}")

    def _refused(self, by: str, words: str) -> BudgetExceededError:
        with self._lock:
            self._used = replace(self._used, refused=self._used.refused + 1, refused_by=by)
            if by not in self._refusers:
                self._refusers.add(by)
                self._on_use(self._used)
        return BudgetExceededError(f"{words}; fix: {fix_of(by)}")


def fix_of(refuser: str, step: str = "the step") -> str:
    """Return what lets more calls through, for a limit as `ModelUse.refused_by` names it."""
    payer, _, unit = refuser.partition(".")
    match payer:
        case "turn":
            return f"raise `max_tokens` of {step}"
        case "step":
            return f"raise `budget: {unit}` of {step}"
        case "run":
            return f"raise `budget: {unit}` of the pipeline"
        case "day" if unit:
            return f"raise `budget_per_day: {unit}` of the project file, or wait for the next day (UTC)"
        case "day":
            return "free some space in the folder of the runs"
        case "prices":
            return "add the model to the file of `prices:` in the project file"
        case _:
            return f"raise the budget of {step}"
