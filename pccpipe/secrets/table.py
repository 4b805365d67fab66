"""Finds the forms of all secrets in data.

Stores each form as a reading of text has it (see `readings`), so one entry finds it however it is wrapped or escaped.

There is no search for each form. A form of 15 bytes or more has one of its first 8 bytes at a multiple of 8, wherever
it is. The 8 bytes from there are looked up in a set; only at multiples of 16, 24 or 32 if every form is long enough.
First, a lookup of 4 bytes says whether a form may be near; shorter forms are found by 4 bytes alone. A hit is compared
completely. So masking costs the same for one secret as for twenty, and no text makes it slow.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from pccpipe.secrets.forms import SHORTEST, forms_of
from pccpipe.secrets.readings import BLANKS, ENDS, Reading, begins_escape, last_readings, readings

SHORTEST_WRAPPED = 8
"""Characters; a shorter form is found only without line ends in it: its pieces are in many texts."""
SHORTEST_SPACED = 16
"""Characters; a shorter form is found only without blanks, and digits only without either: tables contain them."""
_FARTHEST = 32
"""The most bytes between two lookups: more bytes need more entries."""
_FARTHEST_SPACED = 104
"""The same for hex with separators, which is long."""
_SPACED = re.compile(rb"(?=.{15})(?:[0-9a-fA-F]{2}[:,-]|0x[0-9a-fA-F]{2},?0x|[0-9a-fA-F]{2},?0x)", re.DOTALL)
_FAR = 16
"""The fewest bytes between two lookups for which a lookup of 4 bytes first is not worth it."""
_HEAD = 4
"""Bytes of a form's beginning by which it is found at the end of a stream so far."""


class ValueForms:
    """The forms of one value."""

    def __init__(self, value: str) -> None:
        literal = {*forms_of(value)}
        self.read: set[bytes] = set()
        """The forms as readings have them."""
        self.literal: list[bytes] = []
        """Forms of which a reading leaves too little; they are found only as they are."""
        self.tight: dict[bytes, set[bytes]] = {}
        """The texts that a short form may have: itself, with its own blanks and line ends."""
        for form in literal:
            # Also reads the form as if an escape before it swallowed its first character.
            for reading in readings(form):
                if len(reading.text) < SHORTEST:
                    self.literal.append(form)
                    continue
                self.read.add(reading.text)
                if kept := _kept(reading.text):
                    self.tight.setdefault(reading.text, set()).add(
                        reading.decode_between(0, len(form), kept).strip(kept)
                    )


def _kept(form: bytes) -> bytes:
    """Return the bytes of noise that must not be in a form, because it is short."""
    if len(form) >= SHORTEST_SPACED:
        return b""
    return BLANKS if len(form) >= SHORTEST_WRAPPED and not form.isdigit() else BLANKS + ENDS


class FormTable:
    """The forms to search. Immutable."""

    def __init__(self, of_values: Iterable[ValueForms]) -> None:
        values = [*of_values]
        self._literal = sorted({form for value in values for form in value.literal})
        self._tight: dict[bytes, set[bytes]] = {}
        for value in values:
            for form, tight in value.tight.items():
                self._tight.setdefault(form, set()).update(tight)
        forms = {form for value in values for form in value.read}
        self._forms = [*forms, *self._literal]
        self.is_empty = not self._forms
        self._short = [form for form in forms if len(form) < 7]
        self._rows: list[tuple[_Grams, ...]] = []
        """In each row, the first is fast and the last finds: all of a row must see a form near."""
        spaced = [form for form in forms if _SPACED.match(form)]
        rest = forms.difference(spaced)
        middle = [form for form in rest if 7 <= len(form) < 15]
        long = [form for form in rest if len(form) >= 15]
        if spaced:
            # Four bytes of such a form are in many times of day; eight of them are rare.
            self._rows.append((_Grams(8, "Q", spaced, _FARTHEST_SPACED),))
        if middle:
            self._rows.append((_Grams(4, "I", middle),))
        if long:
            grams = _Grams(8, "Q", long)
            # Numbers of eight bytes take longer, but four bytes of a form are in many texts.
            self._rows.append((grams,) if grams.stride >= _FAR else (_Grams(4, "I", long), grams))
        self._longest = max(map(len, forms), default=0)
        self._longest_literal = max(map(len, self._literal), default=0)
        self._heads: dict[bytes, list[bytes]] = {}
        for form in forms:
            self._heads.setdefault(form[:_HEAD], []).append(form)
        self._first = frozenset(head[:length] for head in self._heads for length in range(1, _HEAD))
        self._head_numbers = frozenset(int.from_bytes(head, sys.byteorder) for head in self._heads)

    @property
    def reach(self) -> int:
        """Bytes of the longest secret with the most noise in it."""
        return max(_reach(self._longest), self._longest_literal)

    def find(self, data: bytes) -> list[tuple[int, int]]:
        """Return the ranges of secrets in `data`, in order; overlapping ones as one."""
        if self.is_empty:
            return []
        found = [place for form in self._literal for place in _places(form, data)]
        for reading in readings(data):
            found += self._in_reading(reading)
        return _merged(found)

    def _in_reading(self, reading: Reading) -> Iterator[tuple[int, int]]:
        text = reading.text
        by_kept: dict[bytes, list[tuple[int, int]]] = {}
        for start, end in self._in_text(text):
            by_kept.setdefault(_kept(text[start:end]), []).append((start, end))
        for kept, places in by_kept.items():
            # Treats overlapping ranges together, as in a long row of one character.
            for start, end, of in _overlapping(places):
                first, last = reading.place(start, end)
                if last - first <= _reach(end - start) and self._is_meant(reading, text[start:end], first, last, kept):
                    yield first, last
                elif len(of) > 1:
                    each = ((text[start:end], *reading.place(start, end)) for start, end in of)
                    yield from (
                        (first, last)
                        for form, first, last in each
                        if last - first <= _reach(len(form)) and self._is_meant(reading, form, first, last, kept)
                    )

    def unsure(self, data: bytes) -> tuple[int, bool]:
        """Return how many bytes at the end of `data` may be the beginning of a secret, and whether they can be shown.

        They can if they are fewer than four before a line's end: many lines end with the first letter of a secret.
        """
        if self.is_empty:
            return 0, False
        hidden, shown = self._unsure_literal(data), 0
        # For most data this much of its end suffices; only noise makes more necessary.
        for size in (2 * self._longest + 64, self.reach):
            tail = data[-size:]
            read = [*last_readings(tail)]
            if len(tail) == len(data) or all(len(reading.text) >= self._longest for reading, _ in read):
                break
        for reading, left_open in read:
            length = self._begun(reading.text)
            if length:
                start = reading.last(length)
                begun = reading.text[-length:]
                if self._may_show(begun, tail[start:]):
                    shown = max(shown, len(tail) - start)
                else:
                    hidden = max(hidden, len(tail) - start)
            elif begins_escape(left_open):
                hidden = max(hidden, len(left_open))
        if hidden and len(read) > 1:
            # Does not cut an escape.
            hidden = len(tail) - min(reading.beginning(len(tail) - hidden) for reading, _ in read[1:])
        return (shown, True) if shown > hidden else (hidden, False)

    def left_over(self, data: bytes) -> int:
        """Return how many bytes at the beginning of `data` may be the end of a secret."""
        most = 0
        for reading in readings(data):
            if length := self._ended(reading.text):
                most = max(most, reading.place(0, length)[1])
        return most

    def _ended(self, text: bytes) -> int:
        """Return how many bytes at the beginning of a reading may be the end of a form."""
        head = text[:_HEAD]
        most = 0
        for form in self._forms if len(head) == _HEAD else ():
            place = form.find(head)
            while place >= 0 and len(form) - place > most:
                if text.startswith(form[place:]):
                    most = len(form) - place
                place = form.find(head, place + 1)
        return most

    def _may_show(self, begun: bytes, data: bytes) -> bool:
        return len(begun) < _HEAD and data.endswith((b"\n", b"\r"))

    def _begun(self, text: bytes) -> int:
        """Return how many bytes at the end of a reading may be the beginning of a form."""
        end = len(text)
        begin = max(0, end - self._longest + 1)
        near = memoryview(text)[begin:]
        for offset in range(_HEAD):
            whole = near[offset : len(near) - (len(near) - offset) % _HEAD]
            if not self._head_numbers.isdisjoint(whole.cast("I")):
                break
        else:
            begin = max(0, end - _HEAD + 1)
        for start in range(begin, end):
            head = text[start : start + _HEAD]
            if len(head) < _HEAD:
                if head in self._first:
                    return len(head)
            elif forms := self._heads.get(head):
                rest = text[start:]
                if any(len(form) > len(rest) and form.startswith(rest) for form in forms):
                    return len(rest)
        return 0

    def _unsure_literal(self, data: bytes) -> int:
        for length in range(min(self._longest_literal - 1, len(data)), 0, -1):
            rest = data[-length:]
            if any(len(form) > length and form.startswith(rest) for form in self._literal):
                return length
        return 0

    def _in_text(self, text: bytes) -> Iterator[tuple[int, int]]:
        for form in self._short:
            yield from _places(form, text)
        for row in self._rows:
            if all(grams.are_near(text) for grams in row):
                yield from row[-1].find(text)

    def _is_meant(self, reading: Reading, read: bytes, start: int, end: int, kept: bytes) -> bool:
        """Say whether a hit is more than chance: a short form must not have noise of others in it."""
        if not kept:
            return True
        text = reading.decode_between(start, end, kept)
        return text in self._tight.get(read, (read,))


def _reach(length: int) -> int:
    """Return the most bytes that a form may take with its escapes and noise."""
    return 16 * length + 1024


class _Grams:
    """Finds forms of at least `2 * width - 1` bytes by `width` bytes of their beginnings, read as a number.

    Looks at the data only every `stride` bytes: as far apart as the shortest form allows.
    """

    def __init__(self, width: int, code: Literal["Q", "I"], forms: Sequence[bytes], farthest: int = _FARTHEST) -> None:
        self._width = width
        self._code = code
        self._all = forms
        self.stride = min(farthest, min(map(len, forms)) - width + 1) // width * width

    def are_near(self, data: bytes) -> bool:
        """Say whether a form may be in `data`."""
        return not self._known.isdisjoint(self._numbers(data))

    def find(self, data: bytes) -> list[tuple[int, int]]:
        """Return the range of each form in `data`."""
        return [
            (start, start + len(form))
            for place, number in enumerate(self._numbers(data))
            if number in self._known
            for head, offset in self._heads[number]
            if (start := place * self.stride - offset) >= 0 and data.startswith(head, start)
            for form in self._forms[head]
            if data.startswith(form, start)
        ]

    def _numbers(self, data: bytes) -> memoryview:
        whole = memoryview(data)[: len(data) - len(data) % self._width]
        return whole.cast(self._code)[:: self.stride // self._width]

    # Made on first use: most output contains nothing like a secret.

    @functools.cached_property
    def _known(self) -> frozenset[int]:
        heads = {form[: self.stride + self._width - 1] for form in self._all}
        pieces = {head[offset : offset + self._width] for head in heads for offset in range(self.stride)}
        return frozenset(int.from_bytes(piece, sys.byteorder) for piece in pieces)

    @functools.cached_property
    def _forms(self) -> Mapping[bytes, list[bytes]]:
        """The forms by their beginnings: many differ only after them."""
        forms: dict[bytes, list[bytes]] = {}
        for form in self._all:
            forms.setdefault(form[: self.stride + self._width - 1], []).append(form)
        return forms

    @functools.cached_property
    def _heads(self) -> Mapping[int, list[tuple[bytes, int]]]:
        """The beginnings that contain each number, and its offset."""
        heads: dict[int, list[tuple[bytes, int]]] = {}
        for head in self._forms:
            for offset in range(self.stride):
                number = int.from_bytes(head[offset : offset + self._width], sys.byteorder)
                heads.setdefault(number, []).append((head, offset))
        return heads


def _places(form: bytes, data: bytes) -> Iterator[tuple[int, int]]:
    start = data.find(form)
    while start >= 0:
        yield start, start + len(form)
        start = data.find(form, start + 1)


def _overlapping(places: list[tuple[int, int]]) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """Yield the range of each group of overlapping ranges, and the group."""
    places.sort()
    begin = 0
    furthest = 0
    for number, (start, end) in enumerate(places):
        if number > begin and start >= furthest:
            yield places[begin][0], furthest, places[begin:number]
            begin = number
        furthest = max(furthest, end)
    if places:
        yield places[begin][0], furthest, places[begin:]


def _merged(found: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
