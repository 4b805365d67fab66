"""Takes secrets out of everything before it is written, in each form that they commonly travel in (see `forms`)."""

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
"""Bytes that are looked through at once: for some 10 ms."""
_CUT = re.compile(rb"\.\.\.|\xe2\x80\xa6")
"""Marks the place in a message where a long text was cut, as `values.cut` writes it."""
_PIECE_OF_SECRET = 4
"""Bytes of a secret that are masked where it was cut, at least: every word ends in the first letters of something."""


class Masker:
    """Masks the given values, and for a while more of them. Safe from many threads; each stream has its own `stream()`.

    Where secrets overlap, all that belongs to one of them becomes one mask. A value that joins while a stream is read
    is masked in what comes after that.
    """

    def __init__(self, values: Iterable[str]) -> None:
        self._lock = threading.Lock()
        self._values = [*values]
        self._forms: dict[str, ValueForms] = {}
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

    def _made(self) -> FormTable:
        # Those of a value are made once, however many others come and go beside it.
        self._forms = {value: self._forms.get(value) or ValueForms(value) for value in self._values if value}
        return FormTable(self._forms.values())

    @property
    def longest(self) -> int:
        """Bytes of the longest form of a secret, with all that may stand between its characters."""
        return self.table.reach

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

    def message(self, text: str) -> str:
        """The same for a message of pccpipe's own, where a long text may be cut in the midst of a secret.

        A piece that is left of a secret there is masked too.
        """
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
        """Bytes at the beginning of what is held that are shown, or that a mask already stands for."""
        self._masked = 0
        """Of these, the bytes up to the end of the last mask."""
        self.found = False
        """Whether there was a secret in it so far."""

    def feed(self, data: bytes) -> bytes:
        """More of the stream; gives what of it can be shown now."""
        whole = self._held + data if self._held else data
        table = self._masker.table
        unsure, is_shown = table.unsure(whole)
        return self._show(table, whole, len(whole) - unsure, len(whole) if is_shown else len(whole) - unsure)

    @property
    def held(self) -> int:
        """Bytes that are held back."""
        return len(self._held) - self._covered

    def finish(self) -> bytes:
        """What was held back, now that no more comes."""
        return self._show(self._masker.table, self._held, len(self._held), len(self._held))

    def _show(self, table: FormTable, whole: bytes, kept: int, limit: int) -> bytes:
        """What is before `limit`, masked; all from `kept` on is held."""
        shown: list[bytes] = []
        at = self._covered
        masked = self._masked
        for start, end in table.find(whole):
            # One that begins in the unsure part may be the beginning of a longer one.
            if start >= limit:
                break
            if start >= at:
                shown += (whole[at:start], MASK)
            elif start >= masked and end > at:
                # Its beginning was shown, when it looked like nothing.
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
    """Take secrets out of what an exception says, and those that it came of, before it leaves for a log or a screen."""
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
            # What it shows is not in its arguments.
            error.strerror, error.filename = (
                masker.message(text) if isinstance(text, str) else text for text in (error.strerror, error.filename)
            )
        inner = (value for value in error.args if isinstance(value, BaseException))
        left += [error.__cause__, error.__context__, *inner]


def _masked(value: object, masker: Masker) -> object:
    """What an exception holds, without secrets; the same object where it has none."""
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
