"""Holds the rights of a step at the proxy, and counts its use of the model."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar
from urllib.parse import urlsplit

from msgspec import Struct, field
from msgspec.structs import replace

from pccpipe import limits
from pccpipe.errors import PccpipeError, UsageError
from pccpipe.model_api import ModelApi
from pccpipe.secrets.proxy.provider_limits import OpenCalls, ProviderLimits
from pccpipe.secrets.proxy.request import Request, Rules
from pccpipe.secrets.proxy.usage import Tokens
from pccpipe.values import Discreet

WARNINGS = 10
"""The most warnings about different refusals; after them, one says that there are more."""
END_LIMIT = 2.0
"""Seconds for counting calls that the end of a grant cut."""
PREFIX = "/v1"
"""The prefix of the proxy's paths, as of OpenAI's: `PCC_PROXY_URL` ends with it."""


class Api(Discreet, frozen=True):
    """A model's API, and the key to it."""

    hidden: ClassVar[frozenset[str]] = frozenset({"key"})

    secret: str
    """The key's name in the pipeline."""
    key: str
    base: str
    """The URL that replaces `/v1`."""
    calls: tuple[str, ...]
    """The allowed calls, such as `POST /responses`; a `*` is one part of a path."""
    rules: Rules = field(default_factory=Rules)
    """The features that a request may use beyond plain calls of a model."""
    kind: ModelApi = ModelApi.OPENAI

    @staticmethod
    def at(
        secret: str,
        key: str,
        base: str,
        calls: tuple[str, ...],
        rules: Rules | None = None,
        kind: ModelApi = ModelApi.OPENAI,
    ) -> Api:
        """Return an API at a base; without `calls`, it takes those of its kind.

        Raises UsageError if the base is not a URL.
        """
        try:
            url = urlsplit(base)
            fine = url.scheme in {"http", "https"} and url.hostname and url.port != 0
        except ValueError:
            fine = False
        if not fine or url.query or url.fragment or url.username is not None or re.search(r"[^!-~]", base):
            hint = f"write it like {kind.base}"
            raise UsageError(f"secret {secret}: invalid `upstream:` {base!r}; {hint}")
        return Api(secret, key, base.rstrip("/"), calls or kind.calls, rules or Rules(), kind)

    def path_of(self, asked: str) -> str | None:
        """Return the path below the base for one below the proxy's address; None for any other.

        Clients of OpenAI's API append no version to their base URL. Others do, also after that of `PCC_PROXY_URL`.
        """
        if self.kind is ModelApi.OPENAI:
            return asked.removeprefix(PREFIX) if asked.startswith(f"{PREFIX}/") else None
        rest = asked.removeprefix(PREFIX)
        return rest if _VERSION.match(rest) else asked

    def url_of(self, path: str) -> str:
        """Return the path of a call at the API's server. A version at the end of the base counts once."""
        base = urlsplit(self.base).path
        version = _VERSION.match(path)
        if self.kind is not ModelApi.OPENAI and version and base.endswith(version[1]):
            return f"{base}{path.removeprefix(version[1])}"
        return f"{base}{path}"

    @property
    def key_header(self) -> tuple[str, str]:
        """The header that carries the key to the API."""
        match self.kind:
            case ModelApi.OPENAI:
                return "authorization", f"Bearer {self.key}"
            case ModelApi.ANTHROPIC:
                return "x-api-key", self.key
            case ModelApi.GEMINI:
                return "x-goog-api-key", self.key

    def allows(self, method: str, path: str) -> bool:
        """Say whether a call is allowed; `path` is relative to the base."""
        wanted = f"{method} {path}"
        return not _TRICKS.search(path) and any(
            re.fullmatch(re.escape(call).replace(r"\*", "[^/]+"), wanted) for call in self.calls
        )


_VERSION = re.compile(r"(/v\d+(?:(?:alpha|beta)\d*)?)/")
_TRICKS = re.compile(r"[%\\?#]|/\.{1,2}(/|$)|//")
"""Parts of a path that the API may read in another way than pccpipe."""


class EndedTokenError(PccpipeError):
    """The step of a token has ended."""


class ModelUse(Struct, frozen=True):
    """The use of a model by a step so far."""

    calls: int = 0
    """The calls that reached the API."""
    refused: int = 0
    """The calls that arrived when the tokens were used up."""
    tokens: Tokens = field(default_factory=Tokens)
    reserved: int = 0
    """The tokens of the calls under way."""


class Reservation(Struct, frozen=True):
    """The tokens that a call under way may take."""

    tokens: int
    output: int | None
    """The most tokens that its answer may have; None for no limit."""


class BudgetExceededError(PccpipeError):
    """The remaining tokens do not suffice for a call."""


class TokenPool:
    """The tokens of a step over all rounds of a `repeat`: its `budget:`. Safe from many threads.

    Args:
        limit: the number of tokens; None for no limit.
        used: the tokens that earlier rounds, and an earlier process of the run, used.
    """

    def __init__(self, limit: int | None = None, used: int = 0) -> None:
        self.limit = limit
        self.used = used
        self.changed = threading.Condition()


class Meter:
    """Counts the tokens of one turn of a step, over all of its attempts. Safe from many threads.

    Reserves tokens before a call and settles them after it. Calls run at the same time only while the most that they
    can take fits into the rest; otherwise one after another. So together they cannot exceed the limit. A call that runs
    alone exceeds it only if its input has more than a token for each four bytes.

    Args:
        limit: the tokens that the turn may use; None for no limit.
        used: the use until an earlier process of the run was killed.
        on_use: receives the use after each call.
        pool: the tokens for all turns of the step.
    """

    def __init__(
        self, limit: int | None, used: ModelUse, on_use: Callable[[ModelUse], None], pool: TokenPool | None = None
    ) -> None:
        self.limit = limit
        self.pool = pool or TokenPool()
        # A call that was under way when the process was killed cost something; its tokens are unknown.
        tokens = replace(used.tokens, estimated=used.tokens.estimated + used.reserved)
        self._used = replace(used, tokens=tokens, reserved=0)
        self._on_use = on_use
        self._active = 0

    @property
    def used(self) -> ModelUse:
        return self._used

    @property
    def is_limited(self) -> bool:
        return self.limit is not None or self.pool.limit is not None

    @property
    def is_overdrawn(self) -> bool:
        """The use exceeds a limit."""
        is_over = self.pool.limit is not None and self.pool.used > self.pool.limit
        return is_over or (self.limit is not None and self._used.tokens.total > self.limit)

    @property
    def binding(self) -> str:
        """The key of the limit that has less left: `max_tokens` or `budget`."""
        if self.limit is None or self.pool.limit is None:
            return "budget" if self.limit is None else "max_tokens"
        own = self.limit - self._used.tokens.total - self._used.reserved
        return "max_tokens" if own <= self.pool.limit - self.pool.used else "budget"

    @property
    def left(self) -> int:
        """The tokens that are neither used nor reserved."""
        lefts = []
        if self.limit is not None:
            lefts.append(self.limit - self._used.tokens.total - self._used.reserved)
        if self.pool.limit is not None:
            lefts.append(self.pool.limit - self.pool.used)
        return max(0, min(lefts)) if lefts else sys.maxsize

    def reserve(
        self, most_input: int, likely_input: int, output: int | None, choices: int, is_over: Callable[[], bool]
    ) -> Reservation:
        """Reserve tokens for a call; wait for calls under way if necessary.

        Args:
            most_input: the most tokens of its input.
            likely_input: the likely tokens of its input.
            output: the tokens that it wants for each answer.
            choices: the number of answers that it wants.
            is_over: says that its step has ended.

        Raises BudgetExceededError.
        """
        wanted = min(output or LONGEST_ANSWER, LONGEST_ANSWER)
        until = time.monotonic() + TURN_LIMIT
        with self.pool.changed:
            if not self.is_limited:
                return self._reserve(0, output)
            while True:
                if most_input + wanted * choices <= self.left:
                    return self._reserve(most_input + wanted * choices, wanted)
                if not self._active:
                    fits = (self.left - likely_input) // choices
                    if fits < SHORTEST_ANSWER:
                        raise self._refusal(likely_input)
                    granted = min(wanted, fits)
                    return self._reserve(min(self.left, most_input + granted * choices), granted)
                if is_over() or time.monotonic() > until:
                    raise self._refusal(likely_input)
                self.pool.changed.wait(0.2)

    def settle(self, reservation: Reservation, tokens: Tokens) -> None:
        """Replace the reservation of a finished call by the tokens that it took."""
        with self.pool.changed:
            self._active -= 1
            used = self._used
            self._used = replace(
                used, calls=used.calls + 1, tokens=used.tokens + tokens, reserved=used.reserved - reservation.tokens
            )
            self.pool.used += tokens.total - reservation.tokens
            self.pool.changed.notify_all()
            self._on_use(self._used)

    def forfeit(self) -> None:
        """Count all reserved tokens as used: nobody will learn what the calls under way take."""
        with self.pool.changed:
            used = self._used
            if used.reserved:
                tokens = replace(used.tokens, estimated=used.tokens.estimated + used.reserved)
                self._used = replace(used, tokens=tokens, reserved=0)
                self._on_use(self._used)

    def _reserve(self, tokens: int, output: int | None) -> Reservation:
        self._active += 1
        if tokens:
            self._used = replace(self._used, reserved=self._used.reserved + tokens)
            self.pool.used += tokens
            # Recorded before the call, so that a kill in between does not make the call free.
            self._on_use(self._used)
        return Reservation(tokens, output)

    def _refusal(self, wanted: int) -> BudgetExceededError:
        self._used = replace(self._used, refused=self._used.refused + 1)
        if self._used.refused == 1:
            self._on_use(self._used)
        return BudgetExceededError(f"{self.account}; the call needs about {wanted + SHORTEST_ANSWER:,}")

    @property
    def account(self) -> str:
        """The used tokens of each limit, in words."""
        parts = []
        if self.limit is not None:
            parts.append(f"{self._used.tokens.total:,} of this turn's max_tokens of {self.limit:,}")
        if self.pool.limit is not None:
            used = self.pool.used - self._used.reserved
            parts.append(f"{used:,} of the step's budget of {self.pool.limit:,} tokens")
        return f"{' and '.join(parts)} are used"


LONGEST_ANSWER = 128_000
"""The tokens of an answer whose request names no limit, if tokens are limited: no model gives more."""
SHORTEST_ANSWER = 16
"""Tokens; OpenAI's API refuses a lower limit for an answer."""
TURN_LIMIT = 600.0
"""Seconds that a call waits for calls under way if not all fit at the same time."""


class Grant:
    """The rights of the proxy tokens of one attempt of a step, until it ends. Safe from many threads.

    Args:
        apis: by the names of their keys.
        egress: the domains that it may reach, as in a container's `egress:`.
        on_warning: receives a few warnings about refusals.
        provider_limits: those that its calls meet.
    """

    def __init__(
        self,
        apis: tuple[Api, ...],
        egress: tuple[str, ...],
        meter: Meter,
        on_warning: Callable[[str], None],
        provider_limits: ProviderLimits | None = None,
    ) -> None:
        self.apis = apis
        self.egress = egress
        self.meter = meter
        self.provider_limits = provider_limits or ProviderLimits()
        self.open_calls = OpenCalls()
        self._on_warning = on_warning
        self._lock = threading.Condition()
        self._ending = False
        self._over = False
        self._warned: set[str] = set()
        self._trouble, self._troubles = "", 0
        self._ends: set[Callable[[], None]] = set()
        self.large = threading.BoundedSemaphore(limits.LARGE_REQUESTS.most)
        """The slots for large requests in memory."""

    @contextmanager
    def ending(self, end: Callable[[], None]) -> Iterator[None]:
        """Within the block, call `end` at the grant's end, from another thread; at once if it is over already."""
        with self._lock:
            self._ends.add(end)
            is_late = self._ending
        if is_late:
            end()
        try:
            yield
        finally:
            with self._lock:
                self._ends.discard(end)
                self._lock.notify_all()

    def reserve(self, request: Request) -> Reservation:
        """Reserve tokens for a call. Raises BudgetExceededError."""
        if not request.takes_tokens:
            return self.meter.reserve(0, 0, 1, 0, lambda: True)
        return self.meter.reserve(
            request.most_input, request.likely_input, request.output, request.choices, lambda: self._ending
        )

    def answered(self, words: str) -> None:
        """Record how the model's API answered a call; `words` is the problem, or empty."""
        with self._lock:
            self._trouble, self._troubles = words, self._troubles + 1 if words else 0

    @property
    def trouble(self) -> str:
        """The errors of the model's API since its last good answer, in words; empty if there are none."""
        with self._lock:
            times = f", {self._troubles} times in a row" if self._troubles > 1 else ""
            return f"the model's API {self._trouble}{times}" if self._trouble else ""

    @property
    def is_ending(self) -> bool:
        return self._ending

    def settle(self, reservation: Reservation, tokens: Tokens) -> None:
        """Settle a finished call. One that outlives the grant keeps all of its reservation."""
        with self._lock:
            if not self._over:
                self.meter.settle(reservation, tokens)

    def warn(self, message: str) -> None:
        """Warn of a refusal: each only once, and not more than `WARNINGS`."""
        with self._lock:
            if self._over or message in self._warned or len(self._warned) > WARNINGS:
                return
            self._warned.add(message)
            more = "the proxy refused more; it reports no further refusals"
            self._on_warning(message if len(self._warned) <= WARNINGS else more)

    def end(self) -> None:
        """Cut calls that are under way, and count them. Idempotent."""
        with self._lock:
            self._ending = True
            ends = tuple(self._ends)
        for end in ends:
            end()
        with self._lock:
            self._lock.wait_for(lambda: not self._ends, END_LIMIT)
            if not self._over:
                self.meter.forfeit()
            self._over = True
