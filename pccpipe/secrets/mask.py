"""Takes secrets out of everything before it is written, in each form that they commonly travel in (see `forms`).

Found without a search for each form: one of 15 bytes or more, wherever it stands, has one of its first 8 bytes at a
multiple of 8, and the 8 bytes from there on are looked up in a set; only at multiples of 16, 24 or 32 if no form is too
short for that. Before, the same with 4 bytes has seen that one may be near; shorter forms are found by 4 alone. What is
looked up is compared whole. So masking costs the same for one secret as for twenty, and no text makes it slow.
"""

from __future__ import annotations

import functools
import json
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Literal

from pccpipe.secrets.forms import forms_of, wrapped_forms_of
from pccpipe.values import Json

MASK = b"***"
_FARTHEST = 32
"""Bytes between two places that are looked at, at most: the more, the more there is to look for."""
_FARTHEST_SPACED = 104
"""The same for hex with something between the bytes, which is long."""
_SPACED = re.compile(rb"(?=.{15})(?:[0-9a-fA-F]{2}){1,2}[ :,-]", re.DOTALL)
_MARKERS = (b"\0", b"&#", b"%", b"\\")
"""Bytes that escapes and UTF-16 have, and most output has not."""
_PIECE = 256 << 10
"""Bytes that are looked through at once: for some 10 ms."""
_HEAD = 4
"""Bytes of a form's beginning by which it is found at the end of what is there of a stream."""


class Masker:
    """Masks the given values, and for a while more of them. Safe from many threads; each stream has its own `stream()`.

    Where secrets overlap, all that belongs to one of them becomes one mask. A value that joins while a stream is read
    is masked in what comes after that.
    """

    def __init__(self, values: Iterable[str]) -> None:
        self._lock = threading.Lock()
        self._values = [*values]
        self._forms: dict[str, frozenset[bytes]] = {}
        self.table = self._made()

    def add(self, values: Iterable[str]) -> None:
        """Mask these too, from now on."""
        with self._lock:
            self._values += values
            self.table = self._made()

    def drop(self, values: Iterable[str]) -> None:
        """Mask these no longer, as often as they were added."""
        with self._lock:
            for value in values:
                self._values.remove(value)
            self.table = self._made()

    def _made(self) -> Table:
        # Those of a value are made once, however many others come and go beside it.
        self._forms = {value: self._forms.get(value) or _all_forms_of(value) for value in self._values if value}
        return Table(self._forms.values())

    @property
    def longest(self) -> int:
        """Bytes of the longest form of a secret."""
        return self.table.longest

    def stream(self) -> StreamMask:
        """For output that comes in pieces, cut at any byte."""
        return StreamMask(self)

    def data(self, data: bytes) -> bytes:
        """The whole of `data`, masked."""
        if len(data) > _PIECE:
            return self._large(data)
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

    def _large(self, data: bytes) -> bytes:
        """The same for much data, in steps: to look through all of it at once holds the interpreter lock for long."""
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
        """The same for text."""
        if self.table.is_empty:
            return text
        data = text.encode("utf-8", "surrogatepass")
        masked = self.data(data)
        return text if masked is data else masked.decode("utf-8", "surrogatepass")

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


class StreamMask:
    """Masks one stream, as `Masker.data` would mask the whole. Holds back only what may be the beginning of a secret,
    until more comes.
    """

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._held = b""
        self._covered = 0
        """Bytes at the beginning of what is held that a mask already stands for."""
        self.found = False
        """Whether there was a secret in it so far."""

    def feed(self, data: bytes) -> bytes:
        """More of the stream; gives what of it can be shown now."""
        whole = self._held + data if self._held else data
        table = self._masker.table
        return self._show(table, whole, len(whole) - table.unsure(whole))

    @property
    def held(self) -> int:
        """Bytes that are held back."""
        return len(self._held)

    def finish(self) -> bytes:
        """What was held back, now that no more comes."""
        return self._show(self._masker.table, self._held, len(self._held))

    def _show(self, table: Table, whole: bytes, limit: int) -> bytes:
        """What is before `limit`, masked; the rest is held."""
        shown: list[bytes] = []
        at = self._covered
        for start, end in table.find(whole):
            # One that begins in the unsure part may be the beginning of a longer one.
            if start >= limit:
                break
            if start >= at:
                shown += (whole[at:start], MASK)
            self.found = True
            at = max(at, end)
        if not shown and not at and limit == len(whole):
            self._held = b""
            return whole
        shown.append(whole[at:limit])
        self._held = whole[limit:]
        self._covered = max(0, at - limit)
        return b"".join(shown)


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


def _all_forms_of(value: str) -> frozenset[bytes]:
    return frozenset(chain(forms_of(value), wrapped_forms_of(value)))


class Table:
    """What to look for. Immutable. `of_values` are the forms of each."""

    def __init__(self, of_values: Iterable[frozenset[bytes]]) -> None:
        forms = frozenset[bytes]().union(*of_values)
        self.is_empty = not forms
        self._short = [form for form in forms if len(form) < 7]
        self._rows: list[tuple[bytes, tuple[_Grams, ...]]] = []
        """Of each the first is quick, and the last finds: all of a row must see a form near. Before them the byte that
        each of its forms has: text without that byte has none of them."""
        spaced = [form for form in forms if _SPACED.match(form)]
        if spaced:
            # Four bytes of such a form are in many a time of day; eight of them are in little else.
            self._rows.append((b"", (_Grams(8, "Q", spaced, _FARTHEST_SPACED),)))
        for marker, marked in _by_marker(forms.difference(spaced)).items():
            middle = [form for form in marked if 7 <= len(form) < 15]
            long = [form for form in marked if len(form) >= 15]
            if middle:
                self._rows.append((marker, (_Grams(4, "I", middle),)))
            if long:
                self._rows.append((marker, (_Grams(4, "I", long), _Grams(8, "Q", long))))
        self.longest = max(map(len, forms), default=0)
        self._heads: dict[bytes, list[bytes]] = {}
        for form in forms:
            if len(form) > _HEAD:
                self._heads.setdefault(form[:_HEAD], []).append(form)
        short = {form[:-1] for form in forms if len(form) <= _HEAD}
        beginnings = {head[:length] for head in chain(self._heads, short) for length in range(1, _HEAD)}
        self._heads |= {beginning: [] for beginning in beginnings}

    def find(self, data: bytes) -> list[tuple[int, int]]:
        """Where secrets stand in `data`, from and to, in order; overlapping ones as one."""
        found = [place for form in self._short for place in _places(form, data)]
        for marker, row in self._rows:
            if marker in data and all(grams.are_near(data) for grams in row):
                found += row[-1].find(data)
        return _merged(found)

    def unsure(self, data: bytes) -> int:
        """How many bytes at the end of `data` may be the beginning of a secret."""
        end = len(data)
        for start in range(max(0, end - self.longest + 1), end):
            forms = self._heads.get(data[start : start + _HEAD])
            if forms is None:
                continue
            rest = data[start:]
            if len(rest) < _HEAD or any(len(form) > len(rest) and form.startswith(rest) for form in forms):
                return len(rest)
        return 0


class _Grams:
    """Finds forms of at least `2 * width - 1` bytes by the numbers that `width` bytes of their beginnings are.

    Of the data only every `stride` bytes are looked at: as far apart as the shortest form allows.
    """

    def __init__(self, width: int, code: Literal["Q", "I"], forms: Sequence[bytes], farthest: int = _FARTHEST) -> None:
        self._width = width
        self._code = code
        self._all = forms
        self._stride = min(farthest, min(map(len, forms)) - width + 1) // width * width

    def are_near(self, data: bytes) -> bool:
        """Whether a form may be in `data`."""
        return not self._known.isdisjoint(self._numbers(data))

    def find(self, data: bytes) -> list[tuple[int, int]]:
        """From and to of each form in `data`."""
        return [
            (start, start + len(form))
            for place, number in enumerate(self._numbers(data))
            if number in self._known
            for head, offset in self._heads[number]
            if (start := place * self._stride - offset) >= 0 and data.startswith(head, start)
            for form in self._forms[head]
            if data.startswith(form, start)
        ]

    def _numbers(self, data: bytes) -> memoryview:
        whole = memoryview(data)[: len(data) - len(data) % self._width]
        return whole.cast(self._code)[:: self._stride // self._width]

    # Each is made when it is first needed: most output has no secret anywhere near.

    @functools.cached_property
    def _known(self) -> frozenset[int]:
        heads = {form[: self._stride + self._width - 1] for form in self._all}
        pieces = {head[offset : offset + self._width] for head in heads for offset in range(self._stride)}
        return frozenset(int.from_bytes(piece, sys.byteorder) for piece in pieces)

    @functools.cached_property
    def _forms(self) -> Mapping[bytes, list[bytes]]:
        """By their beginnings: many differ only behind what is looked for."""
        forms: dict[bytes, list[bytes]] = {}
        for form in self._all:
            forms.setdefault(form[: self._stride + self._width - 1], []).append(form)
        return forms

    @functools.cached_property
    def _heads(self) -> Mapping[int, list[tuple[bytes, int]]]:
        """Where the numbers stand, in which beginnings."""
        heads: dict[int, list[tuple[bytes, int]]] = {}
        for head in self._forms:
            for offset in range(self._stride):
                number = int.from_bytes(head[offset : offset + self._width], sys.byteorder)
                heads.setdefault(number, []).append((head, offset))
        return heads


def _by_marker(forms: Iterable[bytes]) -> Mapping[bytes, list[bytes]]:
    """Sort forms by a byte that most text lacks and that they have, if there is one; by no byte, if not."""
    sorted_: dict[bytes, list[bytes]] = {}
    for form in forms:
        marker = next((marker for marker in _MARKERS if marker in form), b"")
        sorted_.setdefault(marker, []).append(form)
    return sorted_


def _places(form: bytes, data: bytes) -> Iterator[tuple[int, int]]:
    start = data.find(form)
    while start >= 0:
        yield start, start + len(form)
        start = data.find(form, start + 1)


def _merged(found: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
