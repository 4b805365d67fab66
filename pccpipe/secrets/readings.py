"""The ways in which text is read that may hide a secret: with noise between its characters, or with escapes for some.

Noise is what no reader sees or misses: line ends and blanks, control and invisible characters, colour codes, and the
columns beside the bytes of a hex dump. A reading has none of it, and each escape decoded. It knows where its bytes
stood.
"""

from __future__ import annotations

import functools
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

ENDS = b"\r\n"
BLANKS = b" \t"
DROPPED = bytes([*range(33), 127]) + b"\\"
"""Bytes that no reading has. Without zero bytes, UTF-16 is Latin-1; without backslashes, a quote is as it was."""
REACH = 700
"""Bytes of the longest escape or noise that is taken as one, at least."""
_BLOCK = 512
"""Bytes in which the place of one is searched."""

_HEX = "[0-9a-fA-F]"
_RUN = r"\\\\{0,63}+"
"""Backslashes: each level of JSON in JSON doubles them. Patterns begin with one byte: so they are found at speed."""
_CSI = r"\[[0-?]{0,64}[ -/]{0,4}"
_STRING = r"[\]PX^_][^\x07\x1b]{0,512}"
_ESCAPE_CODE = "(?:u001[bB]|x1[bB]|0?33|e)"
_ESCAPED_ESC = f"{_RUN}{_ESCAPE_CODE}"
_HIGH, _LOW = f"u[dD][89abAB]{_HEX}{{2}}", f"u[dD][c-fC-F]{_HEX}{{2}}"
_CHARACTER = (
    f"{_HIGH}{_RUN}{_LOW}|u{_HEX}{{4}}|U{_HEX}{{8}}|[ux]\\{{{_HEX}{{1,8}}\\}}|x{_HEX}{{2}}|[0-3][0-7]{{2}}|[nrt]"
)
# Zero width, bidirectional controls, fillers, tags, variation selectors, C1 controls; blanks of other widths.
_INVISIBLE = (
    r"\xc2[\x80-\xa0\xad]|\xcd\x8f|\xd8\x9c|\xe1(?:\x85[\x9f\xa0]|\x9e[\xb4\xb5]|\xa0[\x8b-\x8f])"
    r"|\xe2(?:\x80[\x80-\x8f\xa8-\xaf]|\x81[\x9f-\xaf])|\xe3(?:\x80\x80|\x85\xa4)"
    r"|\xef(?:\xb8[\x80-\x8f]|\xbb\xbf|\xbe\xa0|\xbf[\xb0-\xbb])|\xf0(?:\x9b\xb2[\xa0-\xa3]|\x9d\x85[\xb3-\xba])"
    r"|\xf3\xa0[\x80-\x87][\x80-\xbf]"
)
_NAMED = {b"amp": b"&", b"lt": b"<", b"gt": b">", b"quot": b'"', b"apos": b"'", b"nbsp": b""}
_NAMES = "amp|lt|gt|quot|apos|nbsp"


def _escapes(strings: str) -> re.Pattern[bytes]:
    parts = [
        r"\\[nrt]",
        rf"\x1b(?:{strings}{_CSI}[@-~]|[ -/]{{0,4}}[0-~]?)",
        r"\xc2\x9b[0-?]{0,64}[ -/]{0,4}[@-~]",
        rf"\\(?:{_ESCAPE_CODE}{_CSI}[@-~]|{_CHARACTER}|\\{{1,63}}(?:{_ESCAPE_CODE}{_CSI}[@-~]|{_CHARACTER})?)",
        rf"%(?:25){{0,8}}{_HEX}{{2}}",
        rf"&(?:amp;){{0,4}}(?:#[0-9]{{1,15}};|#[xX]{_HEX}{{1,15}};|(?:{_NAMES});)",
        _INVISIBLE,
    ]
    return re.compile(f"({'|'.join(parts)})".encode("ascii"), re.DOTALL)


# As bytes of a pattern, and the end of data that may be the beginning of an escape or of noise.
_ESCAPES = _escapes(rf"{_STRING}(?:\x07|\x1b\\)|")
_OPEN = re.compile(
    (
        rf"(?:\x1b(?:{_CSI}|{_STRING}\x1b?|[ -/]{{0,4}})?|(?<!\x1b){_ESCAPED_ESC}(?:{_CSI})?"
        rf"|(?<!\x1b){_RUN}(?:{_HIGH}(?:{_RUN}(?:u{_HEX}{{0,3}})?)?|u{_HEX}{{0,3}}|U{_HEX}{{0,7}}|[ux]\{{{_HEX}{{0,8}}|x{_HEX}?"
        rf"|[0-3][0-7]?)?|%(?:25){{0,8}}{_HEX}?|&(?:amp;){{0,4}}(?:#[0-9]{{0,15}}|#[xX]{_HEX}{{0,15}}|[a-z]{{0,4}})"
        rf"|\xc2(?:\x9b[0-?]{{0,64}}[ -/]{{0,4}})?|[\xcd\xd8]|\xe1[\x85\x9e\xa0]?|\xe2[\x80\x81]?|\xe3[\x80\x85]?"
        rf"|\xef[\xb8\xbb\xbe\xbf]?|\xf0(?:\x9b\xb2?|\x9d\x85?)?|\xf3(?:\xa0[\x80-\x87]?)?)\Z"
    ).encode("ascii"),
    re.DOTALL,
)
# What a terminal takes as a title or a link is text to who reads the log.
_ESCAPES_NOT_STRINGS = _escapes("")
_OFFSET = r"\r?\n[0-9a-f]{7,16}:? {1,2}"
_DUMP_LINE = re.compile(rb"[0-9a-f]{7,16}:? {1,2}[0-9a-f]{2,4} ")
_NEXT_DUMP_LINE = re.compile(rb"\n[0-9a-f]{7,16}:? {1,2}[0-9a-f]{2,4} ")
# Of a dump, its bytes alone; and the column of its characters alone.
_DUMPED_BYTES = re.compile(rf"((?: {{2}}(?:\|[ -~]{{1,16}}\||[ -~]{{16,32}}))?{_OFFSET})".encode())
_OPEN_BYTES = re.compile(
    rb"(?: {2}(?:\|[ -~]{0,16}\|?|[ -~]{0,32})(?:\r?\n[0-9a-f]{0,16}:? {0,2})?|\r?\n[0-9a-f]{0,16}:? {0,2})\Z"
)
_DUMPED_TEXT = re.compile(rf"(\|?{_OFFSET}[0-9a-f]{{2,4}}(?: {{1,2}}[0-9a-f]{{2,4}}){{0,15}} {{2,50}}\|?)".encode())
_OPEN_TEXT = re.compile(rb"(?:\||\|?\r?\n[0-9a-f]{0,16}:?(?: {1,2}[0-9a-f]{2,4}){0,16} {0,50}[0-9a-f]{0,4}\|?)\Z")


class Reading:
    """One way to read data. `text` is what it says."""

    def __init__(self, data: bytes, noise: re.Pattern[bytes] | None = None) -> None:
        self._data = data
        self._noise = noise
        # Every other part is noise or an escape.
        self._parts = [data] if noise is None else noise.split(data)
        self.text = self.said(self._parts)

    def said(self, parts: Sequence[bytes], kept: bytes = b"") -> bytes:
        """Say what parts mean, without noise but with the bytes of `kept`."""
        dropped = DROPPED.translate(None, kept) if kept else DROPPED
        if len(parts) == 1:
            return parts[0].translate(None, dropped)
        meant = [*parts]
        meant[1::2] = map(_MEANINGS.__getitem__, parts[1::2])
        return b"".join(meant).translate(None, dropped)

    def said_between(self, start: int, end: int, kept: bytes) -> bytes:
        """The same for a part of the data; `start` and `end` are of `place`."""
        data = self._data[start:end]
        return self.said([data] if self._noise is None else self._noise.split(data), kept)

    def place(self, start: int, end: int) -> tuple[int, int]:
        """Where in the data these bytes of `text` stand, from and to."""
        return self._place(start)[0], self._place(end - 1)[1]

    def beginning(self, place: int) -> int:
        """Where the escape or noise begins that has this place in it; the place itself if it is in none."""
        starts, _, _ = self._blocks
        block = bisect_right(starts, place) - 1
        return starts[block] if starts and self._is_whole(block) else place

    def _place(self, number: int) -> tuple[int, int]:
        starts, counts, _ = self._blocks
        block = bisect_right(counts, number) - 1
        start = starts[block]
        end = starts[block + 1] if block + 1 < len(starts) else len(self._data)
        if self._is_whole(block):
            return start, end
        data = self._data[start:end]
        wanted = number - counts[block] + 1
        at = start + bisect_left(range(len(data)), wanted, key=lambda last: len(self.said([data[: last + 1]])))
        return at, at + 1

    def _is_whole(self, block: int) -> bool:
        return block in self._blocks[2]

    @functools.cached_property
    def _blocks(self) -> tuple[list[int], list[int], set[int]]:
        """Where each block begins in the data and in the text, and which are noise or an escape."""
        starts: list[int] = []
        counts: list[int] = []
        whole: set[int] = set()
        place = count = 0
        for number, part in enumerate(self._parts):
            is_whole = number % 2 == 1
            for begin in range(0, len(part), len(part) if is_whole else _BLOCK):
                block = part if is_whole else part[begin : begin + _BLOCK]
                if is_whole:
                    whole.add(len(starts))
                starts.append(place)
                counts.append(count)
                place += len(block)
                count += len(self.said([b"", block, b""] if is_whole else [block]))
        return starts, counts, whole


def readings(data: bytes) -> Iterator[Reading]:
    """Read data in each way that differs."""
    yield Reading(data)
    if _may_have_escapes(data):
        yield Reading(data, _ESCAPES)
        if _STRINGS.search(data):
            yield Reading(data, _ESCAPES_NOT_STRINGS)
    if _NEXT_DUMP_LINE.search(data) or _DUMP_LINE.match(data):
        yield Reading(data, _DUMPED_BYTES)
        yield Reading(data, _DUMPED_TEXT)


def last_readings(data: bytes) -> Iterator[tuple[Reading, bytes]]:
    """The same for the end of a stream so far, without what may be the beginning of an escape or of noise; and this."""
    yield Reading(data), b""
    last = len(data) - REACH
    if _may_have_escapes(data):
        left_open = _end(_OPEN, data, last)
        yield Reading(data[: len(data) - len(left_open)], _ESCAPES), left_open
        if _STRINGS.search(data):
            yield Reading(data[: len(data) - len(left_open)], _ESCAPES_NOT_STRINGS), left_open
    for noise, open_end in ((_DUMPED_BYTES, _OPEN_BYTES), (_DUMPED_TEXT, _OPEN_TEXT)):
        if (left_open := _end(open_end, data, last)) or _NEXT_DUMP_LINE.search(data):
            yield Reading(data[: len(data) - len(left_open)], noise), left_open


def begins_escape(data: bytes) -> bool:
    """Say whether an end of data that was left out may be the first character of a secret."""
    return data[:1] in (b"\\", b"%", b"&")


def _end(open_end: re.Pattern[bytes], data: bytes, last: int) -> bytes:
    found = open_end.search(data, max(0, last))
    return found[0] if found else b""


def _may_have_escapes(data: bytes) -> bool:
    return b"\\" in data or b"%" in data or b"&" in data or b"\x1b" in data or not data.isascii()


_STRINGS = re.compile(rb"\x1b[\]PX^_]")


class _Meanings(dict[bytes, bytes]):
    """The bytes that an escape means; none for noise."""

    def __missing__(self, escape: bytes) -> bytes:
        if len(self) > 4096:
            self.clear()
        meaning = self[escape] = _meaning(escape)
        return meaning


_MEANINGS = _Meanings()
_ONE_INVISIBLE = re.compile(f"(?:{_INVISIBLE})\\Z".encode("ascii"))
_ESCAPED_CODE = re.compile(f"{_ESCAPED_ESC}\\[".encode())


def _meaning(escape: bytes) -> bytes:
    rest = escape.lstrip(b"\\")
    if escape[:1] == b"%":
        return bytes([int(escape[-2:], 16)])
    if escape[:1] == b"&":
        return _of_html(escape[1:-1].rpartition(b";")[2] or b"amp")
    if escape[:1] != b"\\" or not rest or _ESCAPED_CODE.match(escape):
        return b""
    if rest in (b"n", b"r", b"t"):
        return {b"n": b"\n", b"r": b"\r", b"t": b"\t"}[rest]
    if rest[:1] == b"x" and rest[1:2] != b"{":
        return bytes([int(rest[1:], 16)])
    if rest[:1] not in (b"u", b"U", b"x"):
        return bytes([int(rest, 8)])
    if len(rest) > 9 and b"{" not in rest:
        high, low = int(rest[1:5], 16), int(rest[-4:], 16)
        return _character(0x10000 + ((high - 0xD800) << 10) + low - 0xDC00)
    return _character(int(rest[1:].strip(b"{}"), 16))


def _of_html(name: bytes) -> bytes:
    if name[:1] != b"#":
        return _NAMED[name]
    return _character(int(name[2:], 16) if name[1:2] in (b"x", b"X") else int(name[1:]))


def _character(code: int) -> bytes:
    if code > 0x10FFFF:
        return b""
    encoded = chr(code).encode("utf-8", "surrogatepass")
    return b"" if _ONE_INVISIBLE.match(encoded) else encoded
