"""Masks secrets in everything before it is written, in each form in which they commonly appear (see `forms`)."""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Iterable

from pccpipe import limits
from pccpipe.secrets.table import FormTable, ValueForms
from pccpipe.values import Json

MASK = b"***"
_PIECE = 256 << 10
"""Bytes that are searched at a time: this takes some 10 ms."""
_CUT = re.compile(rb"\.\.\.|\xe2\x80\xa6")
"""The mark in a message where `values.cut` cut a long text."""
_PIECE_OF_SECRET = 4
"""The fewest bytes of a cut secret that are masked: shorter pieces are in many words."""


class Masker:
    """Masks the given values, and others while they are added. Safe from many threads; use one `stream()` a stream.

    Replaces overlapping secrets by one mask. A value that is added during a stream is masked from then on.
    """

    def __init__(self, values: Iterable[str]) -> None:
        self._lock = threading.Lock()
        self._values = [*values]
        self._forms: dict[str, ValueForms] = {}
        self.table = self._make_table()

    def add(self, values: Iterable[str]) -> None:
        """Mask these values too, from now on."""
        with self._lock:
            self._values += values
            self.table = self._make_table()

    def drop(self, values: Iterable[str]) -> None:
        """Undo one `add` of each of these values."""
        with self._lock:
            for value in values:
                self._values.remove(value)
            self.table = self._make_table()

    def _make_table(self) -> FormTable:
        # Makes the forms of a value once, even if others are added and dropped.
        self._forms = {value: self._forms.get(value) or ValueForms(value) for value in self._values if value}
        return FormTable(self._forms.values())

    @property
    def longest(self) -> int:
        """Bytes of the longest form of a secret, with the most noise between its characters."""
        return self.table.reach

    def stream(self) -> StreamMask:
        """Return a mask for output that arrives in pieces, cut at any byte."""
        return StreamMask(self)

    def data(self, data: bytes) -> bytes:
        """Return all of `data`, masked."""
        if len(data) > _PIECE:
            return self._mask_large(data)
        found = self.table.find(data)
        if not found:
            return data
        shown: list[bytes] = []
        at = 0
        for start, end in found:
            shown += (data[at:start], MASK)
            at = end
        shown.append(data[at:])
        return b"".join(shown)

    def _mask_large(self, data: bytes) -> bytes:
        """Mask much data in steps: searching all of it at once would hold the interpreter lock for long."""
        view = memoryview(data)
        mask = self.stream()
        for start in range(0, len(view), _PIECE):
            mask.feed(bytes(view[start : start + _PIECE]))
            if mask.found:
                break
        else:
            mask.finish()
        if not mask.found:
            return data
        mask = self.stream()
        pieces = [mask.feed(bytes(view[start : start + _PIECE])) for start in range(0, len(view), _PIECE)]
        return b"".join([*pieces, mask.finish()])

    def text(self, text: str) -> str:
        """Return text, masked."""
        if self.table.is_empty:
            return text
        data = text.encode("utf-8", "surrogatepass")
        masked = self.data(data)
        return text if masked is data else masked.decode("utf-8", "surrogatepass")

    def message(self, text: str) -> str:
        """Return a message of pccpipe's own, masked. Masks also the piece of a secret that was cut in a long text."""
        masked = self.text(text)
        if self.table.is_empty or ("..." not in masked and "\u2026" not in masked):
            return masked
        data = masked.encode("utf-8", "surrogatepass")
        shown: list[bytes] = []
        at = 0
        for cut in itertools.islice(_CUT.finditer(data), limits.CUTS.most):
            begins = self.table.unsure(data[at : cut.start()])[0]
            ends = self.table.left_over(data[cut.end() : cut.end() + limits.CUT_END.most])
            start = cut.start() - (begins if begins >= _PIECE_OF_SECRET else 0)
            shown += (data[at:start], MASK if start < cut.start() else b"", cut[0])
            at = cut.end()
            if ends >= _PIECE_OF_SECRET:
                shown.append(MASK)
                at += ends
        return b"".join([*shown, data[at:]]).decode("utf-8", "surrogatepass")

    def json(self, value: Json) -> Json:
        """Return a value with every text in it masked, keys and numbers too."""
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


class StreamMask:
    """Masks one stream as `Masker.data` would mask the whole.

    Holds back only bytes that may be the beginning of a secret, until more bytes arrive.
    """

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._held = b""
        self._covered = 0
        """Bytes at the beginning of the held data that were already returned or masked."""
        self._masked = 0
        """The part of them up to the end of the last mask."""
        self.found = False
        """The stream contained a secret so far."""

    def feed(self, data: bytes) -> bytes:
        """Add bytes of the stream; return the bytes that can be shown now."""
        whole = self._held + data if self._held else data
        table = self._masker.table
        unsure, is_shown = table.unsure(whole)
        return self._show(table, whole, len(whole) - unsure, len(whole) if is_shown else len(whole) - unsure)

    @property
    def held(self) -> int:
        """Bytes that are held back."""
        return len(self._held) - self._covered

    def finish(self) -> bytes:
        """Return the bytes that were held back, at the end of the stream."""
        return self._show(self._masker.table, self._held, len(self._held), len(self._held))

    def _show(self, table: FormTable, whole: bytes, kept: int, limit: int) -> bytes:
        """Return the bytes before `limit`, masked; hold all from `kept` on."""
        shown: list[bytes] = []
        at = self._covered
        masked = self._masked
        for start, end in table.find(whole):
            # A secret that begins in the unsure part may be the beginning of a longer one.
            if start >= limit:
                break
            if start >= at:
                shown += (whole[at:start], MASK)
            elif start >= masked and end > at:
                # Its beginning was shown when it did not look like a secret.
                shown.append(MASK)
            self.found = True
            at = masked = max(at, end)
        if not shown and not at and kept == len(whole):
            self._held = b""
            return whole
        shown.append(whole[at:limit])
        self._held = whole[kept:]
        self._covered = max(0, max(at, limit) - kept)
        self._masked = max(0, masked - kept)
        return b"".join(shown)


def mask_error(error: BaseException | None, masker: Masker) -> None:
    """Mask secrets in an exception, and in its causes, before it is logged or shown."""
    seen: set[int] = set()
    left = [error]
    while left:
        error = left.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        error.args = tuple(_masked(value, masker) for value in error.args)
        for name, value in [*vars(error).items()]:
            # Its notes are a list.
            if (masked := _masked(value, masker)) is not value:
                setattr(error, name, masked)
        if isinstance(error, OSError):
            # Its text comes from these two, and not from its arguments.
            error.strerror, error.filename = (
                masker.message(text) if isinstance(text, str) else text for text in (error.strerror, error.filename)
            )
        inner = (value for value in error.args if isinstance(value, BaseException))
        left += [error.__cause__, error.__context__, *inner]


def _masked(value: object, masker: Masker) -> object:
    """Return an exception's value, masked; the same object if it contains no secret."""
    masked: object = value
    match value:
        case str():
            masked = masker.message(value)
        case bytes():
            masked = masker.data(value)
        case list():
            masked = [_masked(item, masker) for item in value]
        case tuple() if type(value) is tuple:
            masked = tuple(_masked(item, masker) for item in value)
        case dict():
            masked = {_masked(key, masker): _masked(item, masker) for key, item in value.items()}
        case _:
            pass
    return value if masked == value else masked
