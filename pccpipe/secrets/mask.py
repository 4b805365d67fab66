"""Takes secrets out of everything before it is written, in each form that they commonly travel in.

The forms: as they are, base64 and base64url at all three alignments, URL-encoded, JSON-escaped, shell-quoted, hex. A
value of several lines is also masked line by line.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
import threading
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

from pccpipe.values import Json

MASK = b"***"
SHORTEST = 4
"""Characters; a shorter value is masked as it is only: its other forms would be found in many a word."""
SHORTEST_LINE = 8
"""The same for one line of a secret of several lines."""


class Masker:
    """Masks the given values, and for a while more of them. Safe from many threads; each stream has its own `stream()`.

    A value that joins while a stream is read is masked in what comes after that.
    """

    def __init__(self, values: Iterable[str]) -> None:
        self._lock = threading.Lock()
        self._values = [*values]
        self._table = _Table(self._values)

    def add(self, values: Iterable[str]) -> None:
        """Mask these too, from now on."""
        with self._lock:
            self._values += values
            self._table = _Table(self._values)

    def drop(self, values: Iterable[str]) -> None:
        """Mask these no longer, as often as they were added."""
        with self._lock:
            for value in values:
                self._values.remove(value)
            self._table = _Table(self._values)

    def stream(self) -> StreamMask:
        """For output that comes in pieces, cut at any byte."""
        return StreamMask(self)

    def data(self, data: bytes) -> bytes:
        """The whole of `data`, masked."""
        pattern = self._table.pattern
        return pattern.sub(MASK, data) if pattern else data

    def text(self, text: str) -> str:
        """The same for text."""
        if self._table.pattern is None:
            return text
        return self.data(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def json(self, value: Json) -> Json:
        """The same for every text in a value, keys and numbers too."""
        match value:
            case str():
                return self.text(value)
            case list():
                return [self.json(item) for item in value]
            case dict():
                return {self.text(key): self.json(item) for key, item in value.items()}
            case int() | float() if not isinstance(value, bool):
                text = json.dumps(value)
                masked = self.text(text)
                return value if masked == text else masked
            case _:
                return value

    def split(self, data: bytes) -> tuple[bytes, bytes, bool]:
        """What of the beginning of a stream can be shown, masked; the rest, which may be the beginning of a secret;
        and whether there was one.
        """
        table = self._table
        if table.pattern is None:
            return data, b"", False
        limit = len(data) - table.unsure(data)
        shown: list[bytes] = []
        at = 0
        for match in table.pattern.finditer(data):
            # A match that begins in the unsure part may turn out to be the beginning of a longer secret.
            if match.start() >= limit:
                break
            shown += (data[at : match.start()], MASK)
            at = match.end()
        shown.append(data[at:limit])
        return b"".join(shown), data[max(at, limit) :], at > 0


class _Table:
    """What to look for. Immutable."""

    def __init__(self, values: Iterable[str]) -> None:
        forms = sorted({form for value in values if value for form in _forms(value)}, key=len, reverse=True)
        self.pattern = re.compile(b"|".join(map(re.escape, forms))) if forms else None
        self._longest = len(forms[0]) if forms else 0
        self._prefixes = frozenset(form[:length] for form in forms for length in range(1, len(form)))

    def unsure(self, data: bytes) -> int:
        """How many bytes at the end of `data` may be the beginning of a secret."""
        for length in range(min(self._longest - 1, len(data)), 0, -1):
            if data[-length:] in self._prefixes:
                return length
        return 0


def mask_error(error: BaseException | None, masker: Masker) -> None:
    """Take secrets out of what an exception says, and those that it came of, before it leaves for a log or a screen."""
    seen: set[int] = set()
    left = [error]
    while left:
        error = left.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        error.args = tuple(masker.text(value) if isinstance(value, str) else value for value in error.args)
        for name, value in vars(error).items():
            if isinstance(value, str):
                setattr(error, name, masker.text(value))
        if isinstance(error, OSError):
            # What it shows is not in its arguments.
            error.strerror, error.filename = (
                masker.text(text) if isinstance(text, str) else text for text in (error.strerror, error.filename)
            )
        inner = (value for value in error.args if isinstance(value, BaseException))
        left += [error.__cause__, error.__context__, *inner]


class StreamMask:
    """Masks one stream. Holds back only what may be the beginning of a secret, until more comes."""

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._held = b""
        self.found = False
        """Whether there was a secret in it so far."""

    def feed(self, data: bytes) -> bytes:
        """More of the stream; gives what of it can be shown now."""
        shown, self._held, found = self._masker.split(self._held + data if self._held else data)
        self.found = self.found or found
        return shown

    def finish(self) -> bytes:
        """What was held back, now that no more comes."""
        held, self._held = self._held, b""
        shown = self._masker.data(held)
        self.found = self.found or shown != held
        return shown


def forms_of(value: str) -> frozenset[bytes]:
    """Each form in which a value is masked; for who looks whether one got through."""
    return frozenset(_forms(value))


def _forms(value: str) -> Iterator[bytes]:
    if len(value) < SHORTEST:
        yield value.encode()
        return
    yield from _encoded(value)
    lines = value.splitlines()
    if len(lines) > 1:
        for line in lines:
            if len(line.strip()) >= SHORTEST_LINE:
                yield from _encoded(line.strip())


def _encoded(value: str) -> Iterator[bytes]:
    raw = value.encode("utf-8", "surrogatepass")
    yield raw
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    for text in (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]):
        yield text.encode("utf-8", "surrogatepass")
        yield text.replace("/", "\\/").encode("utf-8", "surrogatepass")
    quoted = shlex.quote(value)
    yield (quoted[1:-1] if quoted.startswith("'") else quoted).encode("utf-8", "surrogatepass")
    for encoded in (quote(raw, safe=""), quote(raw), quote_plus(raw)):
        yield encoded.encode()
        yield re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), encoded).encode()
    yield from _base64(raw)


def _base64(raw: bytes) -> Iterator[bytes]:
    """What is sure to stand in the base64 of any text that has `raw` in it, for each alignment."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw)
        # The first characters share bits with what comes before, the last ones with what comes after.
        start = (before * 8 + 5) // 6
        end = (before + len(raw)) * 8 // 6
        sure = encoded[start:end]
        if len(sure) >= SHORTEST:
            yield sure
            yield sure.replace(b"+", b"-").replace(b"/", b"_")
