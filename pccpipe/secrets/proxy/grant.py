"""What a step may do through the proxy, and what it has done."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar
from urllib.parse import urlsplit

from msgspec import Struct, field
from msgspec.structs import replace

from pccpipe.errors import UsageError
from pccpipe.secrets.proxy.usage import Tokens
from pccpipe.values import Discreet

WARNINGS = 10
"""Different things that were refused, of which a warning each is given; then one says that there is more."""
END_LIMIT = 2.0
"""Seconds in which what was cut at a grant's end can still be counted."""
PREFIX = "/v1"
"""In front of the proxy's paths, as in front of OpenAI's: `PCC_PROXY_URL` ends with it."""


class Api(Discreet, frozen=True):
    """A model's API, and the key to it."""

    hidden: ClassVar[frozenset[str]] = frozenset({"key"})

    secret: str
    """The key's name in the pipeline."""
    key: str
    base: str
    """The URL that stands for `/v1`."""
    calls: tuple[str, ...]
    """What may be asked of it: `POST /responses`; a `*` is one part of a path."""

    @staticmethod
    def at(secret: str, key: str, base: str, calls: tuple[str, ...]) -> Api:
        """Raises UsageError for a base that is no URL."""
        try:
            url = urlsplit(base)
            fine = url.scheme in {"http", "https"} and url.hostname and url.port != 0
        except ValueError:
            fine = False
        if not fine or url.query or url.fragment or url.username is not None or re.search(r"[^!-~]", base):
            hint = "it is written like https://api.openai.com/v1"
            raise UsageError(f"the `upstream:` of the secret {secret} is no URL of an API: {base!r}; {hint}")
        return Api(secret, key, base.rstrip("/"), calls)

    def allows(self, method: str, path: str) -> bool:
        """Whether that may be asked; `path` is relative to the base."""
        asked = f"{method} {path}"
        return not _TRICKS.search(path) and any(
            re.fullmatch(re.escape(call).replace(r"\*", "[^/]+"), asked) for call in self.calls
        )


_TRICKS = re.compile(r"[%\\?#]|/\.{1,2}(/|$)|//")
"""What could make a path mean another one to the API than it does here."""


class Used(Struct, frozen=True):
    """What a step has used of the model so far."""

    calls: int = 0
    """That were let through to the API."""
    refused: int = 0
    """That came when its tokens were used up."""
    tokens: Tokens = field(default_factory=Tokens)


class Meter:
    """Counts the tokens of one turn of a step, over all of its attempts. Safe from many threads.

    Args:
        limit: how many tokens it may use; None for no limit.
        used: what it had used when an earlier process of the run was killed.
        on_use: told after each call.
    """

    def __init__(self, limit: int | None, used: Used, on_use: Callable[[Used], None]) -> None:
        self.limit = limit
        self._used = used
        self._on_use = on_use
        self._lock = threading.Lock()

    @property
    def used(self) -> Used:
        return self._used

    @property
    def is_used_up(self) -> bool:
        return self.limit is not None and self._used.tokens.total >= self.limit

    def admit(self) -> bool:
        """Whether one more call may begin. One that has begun is never cut: what it takes may go over the limit."""
        with self._lock:
            if not self.is_used_up:
                return True
            self._used = replace(self._used, refused=self._used.refused + 1)
            if self._used.refused == 1:
                self._on_use(self._used)
            return False

    def count(self, tokens: Tokens) -> None:
        """A call is over."""
        with self._lock:
            self._used = replace(self._used, calls=self._used.calls + 1, tokens=self._used.tokens + tokens)
            self._on_use(self._used)


class Grant:
    """What the tokens of one attempt of a step are good for, until it ends. Safe from many threads.

    Args:
        apis: by the names of their keys.
        egress: the domains that it may reach, as in a container's `egress:`.
        on_warning: told of what was refused, a few times.
    """

    def __init__(
        self, apis: tuple[Api, ...], egress: tuple[str, ...], meter: Meter, on_warning: Callable[[str], None]
    ) -> None:
        self.apis = apis
        self.egress = egress
        self.meter = meter
        self._on_warning = on_warning
        self._lock = threading.Condition()
        self._ending = False
        self._over = False
        self._warned: set[str] = set()
        self._ends: set[Callable[[], None]] = set()

    @contextmanager
    def ending(self, end: Callable[[], None]) -> Iterator[None]:
        """Within the block, the grant's end calls `end`, from another thread; at once if it is over already."""
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

    def count(self, tokens: Tokens) -> None:
        """A call is over. One that outlives the grant is nobody's any more."""
        with self._lock:
            if not self._over:
                self.meter.count(tokens)

    def warn(self, message: str) -> None:
        """Tell of something that was refused; the same thing once, and not for ever."""
        with self._lock:
            if self._over or message in self._warned or len(self._warned) > WARNINGS:
                return
            self._warned.add(message)
            more = "the proxy refused more than that; no more of it is told"
            self._on_warning(message if len(self._warned) <= WARNINGS else more)

    def end(self) -> None:
        """Cut what still goes on, and let it be counted. Idempotent."""
        with self._lock:
            self._ending = True
            ends = tuple(self._ends)
        for end in ends:
            end()
        with self._lock:
            self._lock.wait_for(lambda: not self._ends, END_LIMIT)
            self._over = True
