"""Reads a provider's limits (429, overloaded) from the answers of a model's API, and decides how long the proxy waits.

The proxy waits with the client's connection open, because clients differ: Codex fails at once without `retry-after`,
Claude Code at once if it is over 60 s, and Gemini's client ignores it.
"""

from __future__ import annotations

import contextlib
import email.utils
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

from msgspec import Struct

from pccpipe import limits
from pccpipe.cancel import Deadline
from pccpipe.errors import LimitExceeded
from pccpipe.json_reader import NotJson, read_json
from pccpipe.machine.base import ByteStream
from pccpipe.values import Json

STATUSES = {429: "rate limit", 503: "overloaded", 529: "overloaded"}
HOLD = 240.0
"""Seconds that a call waits before its client gets an answer: some clients give up after 300 s without one."""
LONGEST_WAIT = 900.0
"""Seconds that calls wait for a limit whose end the API states; the run waits for a later end without a process."""
LONGEST_UNTOLD_WAIT = 60.0
"""The same for a limit whose end the API does not state."""
NOTABLE = 10.0
"""Seconds of a wait from which on a person learns of it."""
FIRST_PAUSE = 2.0
GLANCE = 0.01
"""Seconds of a look whether a client is still there."""
LOOK = 0.5
"""Seconds after which a waiting call checks whether its step goes on."""
_KINDS = ("overloaded_error", "rate_limit_error", "rate_limit_exceeded", "server_is_overloaded", "slow_down")
"""The types of errors that an API sends as an event of a stream that began well."""
_KIND = re.compile("|".join(_KINDS).encode())
_RETRY = ("retry-after", "x-should-retry")
"""The headers in which an API says whether, and when, a client should call again."""
_NO_MONEY = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_NUMBER = re.compile(r"[0-9]{1,13}(\.[0-9]{1,9})?")
_PARTS = re.compile(
    r"(?:([0-9]{1,6})d)?(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?"
    r"(?:([0-9]{1,9}(?:\.[0-9]{1,9})?)s)?(?:([0-9]{1,9})ms)?"
)


class ProviderLimit(Struct, frozen=True):
    """A limit of a model's provider."""

    words: str
    until: float | None = None
    """The time when it passes, in seconds since the epoch; None if the API does not say."""

    @property
    def sentence(self) -> str:
        """The limit and the time when it passes, for a person."""
        if self.until is None:
            return f"the model's API {self.words} and did not say for how long"
        passes = datetime.fromtimestamp(self.until, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"the model's API {self.words}; its limit passes at {passes}"


def limit_of(status: int, headers: Iterable[tuple[str, str]], body: bytes = b"") -> ProviderLimit | None:
    """Return the limit that an answer states; None for any other answer, also for an account that is used up."""
    if status not in STATUSES or _used_up(body):
        return None
    seconds = _told({name.lower(): value.strip() for name, value in headers})
    if seconds is None:
        seconds = _delay(_error(body))
    until = None if seconds is None else time.time() + min(max(seconds, 0.0), limits.RETRY_AFTER.most)
    return ProviderLimit(f"answered {status} ({STATUSES[status]})", until)


class ProviderLimits:
    """The limits that one attempt of a step met, by the name of the key. Safe from many threads.

    Args:
        deadline: of the step: no call waits beyond it.
        on_beyond: receives a limit that the proxy does not wait for.
        known: one that an earlier process of the run met, until a good answer.
    """

    def __init__(
        self,
        deadline: Deadline | None = None,
        on_beyond: Callable[[ProviderLimit], None] = lambda _: None,
        known: ProviderLimit | None = None,
    ) -> None:
        self._deadline = deadline
        self._on_beyond = on_beyond
        self._lock = threading.RLock()
        self._since: dict[str, float] = {}
        self._beyond: dict[str, ProviderLimit] = {}
        self._last: dict[str, ProviderLimit] = {}
        self._known = known
        self._good: dict[str, int] = {}
        """The number of good answers under way, by the name of the key."""
        self._is_over = False

    def end(self) -> None:
        """Note no further limits: the attempt is over."""
        with self._lock:
            self._is_over = True

    @property
    def beyond(self) -> ProviderLimit | None:
        """The limit that stands and that the proxy does not wait for; None from the begin of a good answer on."""
        with self._lock:
            met = next((limit for key, limit in self._beyond.items() if not self._good.get(key)), None)
            return met or (None if any(self._good.values()) else self._known)

    def conclude(self) -> ProviderLimit | None:
        """Return the limit at which the calls ended, also one that its client did not wait for; None if there is none.

        For an agent that has ended without success: it counts as one that the proxy does not wait for.
        """
        with self._lock:
            last = next(((key, limit) for key, limit in self._last.items() if not self._good.get(key)), None)
        if last and self.beyond is None:
            self.exceed(*last)
        return self.beyond

    def passed(self, key: str) -> None:
        """Note an answer that no limit refused."""
        with self._lock:
            for met in (self._since, self._beyond, self._last):
                met.pop(key, None)
            self._known = None

    def wait(self, key: str, limit: ProviderLimit) -> float:
        """Return the seconds after which the call is made again; 0: its client gets the answer.

        Raises ConnectionResetError after the attempt's end.
        """
        now = time.monotonic()
        with self._lock:
            if self._is_over:
                raise ConnectionResetError("the step is over")
            self._last[key] = limit
            since = self._since.setdefault(key, now)
            # From the time, not from the number of answers: many calls may meet the same limit at once.
            if limit.until is None:
                seconds = FIRST_PAUSE + now - since
                end = since + LONGEST_UNTOLD_WAIT
            else:
                # An API that says 0 again and again must not be asked without a pause.
                seconds = max(limit.until - time.time(), FIRST_PAUSE / 2, (now - since) / 10)
                end = since + LONGEST_WAIT
            if self._deadline:
                end = min(end, self._deadline.at)
            if now + seconds <= end:
                return seconds
            self.exceed(key, limit)
        return 0.0

    def exceed(self, key: str, limit: ProviderLimit) -> None:
        """Note a limit that the proxy does not wait for."""
        with self._lock:
            is_new = key not in self._beyond
            self._beyond[key] = limit
            if is_new:
                self._on_beyond(limit)

    def watched(self, key: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Pass on an answer that no limit refused; note its end, or the limit that an error in its events states."""
        held, is_cut, is_good = b"", False, True
        self._count_good(key, 1)
        try:
            for piece in pieces:
                *lines, held = (held + piece).split(b"\n")
                for line in lines:
                    if not is_cut and _KIND.search(line) and (kind := _kind_of(line.removeprefix(b"data:"))):
                        # Its client makes the call again.
                        self.wait(key, ProviderLimit(f"ended its answer with an error ({kind})"))
                        self._count_good(key, -int(is_good))
                        is_good = False
                    is_cut = False
                if len(held) > limits.ERROR_EVENT.most:
                    held, is_cut = b"", True
                yield piece
        finally:
            # Also if the client left once it had the last event.
            if is_good:
                self.passed(key)
            self._count_good(key, -int(is_good))

    def _count_good(self, key: str, by: int) -> None:
        with self._lock:
            self._good[key] = self._good.get(key, 0) + by


class OpenCalls:
    """Counts the calls of a model's API under way, those that wait for a limit too. Safe from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._last_end = time.monotonic()

    @property
    def quiet(self) -> float:
        """The seconds since the end of the last call; 0 during a call."""
        with self._lock:
            return 0.0 if self._count else time.monotonic() - self._last_end

    def __enter__(self) -> None:
        with self._lock:
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._count -= 1
            self._last_end = time.monotonic()


def hold(stream: ByteStream, seconds: float, is_over: Callable[[], bool]) -> bytes:
    """Wait with a client's connection open; return what the client sent meanwhile.

    Raises ConnectionResetError if the client left or `is_over`: nobody wants the answer any more.
    """
    until = time.monotonic() + seconds
    received = b""
    while (left := until - time.monotonic()) > 0:
        if is_over() or len(received) > limits.REQUEST_HEAD.most:
            raise ConnectionResetError("the step is over")
        stream.settimeout(min(left, LOOK))
        try:
            data = stream.recv(limits.REQUEST_HEAD.most)
        except TimeoutError:
            continue
        if not data:
            raise ConnectionResetError("the client left while its call waited for a provider's limit")
        received += data
    return received


def asking_again(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the headers of an answer that makes its client call again at once."""
    others = [(name, value) for name, value in headers if not name.lower().startswith(_RETRY)]
    return [*others, ("retry-after", "1"), ("x-should-retry", "true")]


def beginning(pieces: Iterable[bytes]) -> bytes:
    """Return the beginning of a refused call's answer, read now; also of one that is cut."""
    read = b""
    with contextlib.suppress(ConnectionResetError):
        for piece in pieces:
            read += piece
            if len(read) > limits.ERROR_EVENT.most:
                break
    return read


def trouble_of(status: int, body: bytes) -> str:
    """Say in words what is wrong with an answer; empty for a good one."""
    if status < 400:
        return ""
    reason = _used_up(body)
    return f"answered {status}: the account of its key has no money left ({reason})" if reason else f"answered {status}"


def _used_up(body: bytes) -> str:
    """Return the code of an error that says that the account has no money left; empty for any other answer.

    It has the status of a limit, and no time lets it pass.
    """
    error = _error(body)
    codes = (error.get("code"), error.get("type"))
    return next((code for code in codes if isinstance(code, str) and code in _NO_MONEY), "")


def _error(body: bytes) -> dict[str, Json]:
    """Return the error in the body of an answer; empty if it has none."""
    try:
        data = read_json(body, "the answer")
    except (NotJson, LimitExceeded):
        return {}
    match data:
        case {"error": dict(error)} | [{"error": dict(error)}, *_]:
            return error
        case _:
            return {}


def _delay(error: dict[str, Json]) -> float | None:
    """Return the seconds that an error of Gemini's API asks to wait."""
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        match detail:
            case {"retryDelay": str(delay)}:
                return _seconds(delay)
            case _:
                pass
    return None


def _kind_of(line: bytes) -> str:
    """Return the kind of the error that an event states; empty if it is none of a limit."""
    try:
        data = read_json(line, "the event")
    except (NotJson, LimitExceeded):
        return ""
    match data:
        case {"type": "error", "error": {"type": str(kind)}} if kind in _KINDS:
            return kind  # Anthropic's
        case {"type": "response.failed", "response": {"error": {"code": str(kind)}}} if kind in _KINDS:
            return kind  # OpenAI's, as the next one
        case {"type": "error", "code": str(kind)} if kind in _KINDS:
            return kind
        case _:
            return ""


def _told(headers: dict[str, str]) -> float | None:
    """Return the seconds until a limit passes, as the headers of an answer say."""
    if (milliseconds := headers.get("retry-after-ms", "")) and _NUMBER.fullmatch(milliseconds):
        return float(milliseconds) / 1000
    if (seconds := _seconds(headers.get("retry-after", ""))) is not None:
        return seconds
    resets: dict[str, float] = {}
    for name, value in headers.items():
        if name.startswith(("anthropic-ratelimit-", "x-ratelimit-")) and "reset" in name:
            seconds = _seconds(value)
            if seconds is not None:
                resets[name] = seconds
    used_up = [resets[name] for name in resets if headers.get(name.replace("reset", "remaining")) == "0"]
    return max(used_up or resets.values(), default=None)


def _seconds(text: str) -> float | None:
    """Return a wait in seconds: from a number, a duration (`6m0s`), a date of HTTP or of RFC 3339, or an epoch."""
    if _NUMBER.fullmatch(text):
        number = float(text)
        if number > 1e11:
            number /= 1000  # milliseconds since the epoch
        return number - time.time() if number > 1e9 else number
    if text and (parts := _PARTS.fullmatch(text)):
        factors = (86400, 3600, 60, 1, 0.001)
        return sum(float(part) * factor for part, factor in zip(parts.groups(), factors, strict=True) if part)
    for read in (email.utils.parsedate_to_datetime, datetime.fromisoformat):
        try:
            moment = read(text)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError, IndexError):
            continue
    return None
