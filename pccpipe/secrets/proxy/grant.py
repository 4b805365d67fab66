"""Holds the rights of a step at the proxy."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar
from urllib.parse import urlsplit

from msgspec import field

from pccpipe import limits
from pccpipe.errors import PccpipeError, UsageError
from pccpipe.model_api import ModelApi
from pccpipe.secrets.proxy.meter import SHORTEST_ANSWER, Meter, Reservation, WantedCall
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

    def reserve(self, request: Request, look: Callable[[], None] = lambda: None) -> Reservation:
        """Reserve tokens for a call. Raises BudgetExceededError, ConnectionResetError.

        Args:
            look: called again and again while the call waits; raises ConnectionResetError if its client left.
        """
        if not request.takes_tokens:
            return self.meter.reserve_nothing()
        wanted = WantedCall(
            most_input=request.most_input,
            likely_input=request.likely_input,
            output=request.output,
            choices=request.choices,
            model=request.model,
            shortest=max(SHORTEST_ANSWER, request.shortest),
        )

        def is_over() -> bool:
            look()
            return self._ending

        return self.meter.reserve(wanted, is_over)

    def answered(self, words: str) -> None:
        """Record how the model's API answered a call; `words` is the problem, or empty."""
        with self._lock:
            if self._ending:
                return  # the step's end cut the call
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
        self.provider_limits.end()
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
