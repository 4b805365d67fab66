"""Reads text that may hide a secret between noise or behind escapes.

Noise is text that a reader does not notice: line ends and blanks, control and invisible characters, colour codes, and
the columns beside the bytes of a hex dump. A reading drops noise and decodes escapes. It knows the position of each of
its bytes in the data.
"""

from __future__ import annotations

import functools
import itertools
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence

from pccpipe import limits

ENDS = b"\r\n"
BLANKS = b" \t"
DROPPED = bytes([*range(33), 127]) + b"\\"
"""Bytes that no reading has. Without zero bytes, UTF-16 reads as Latin-1; without backslashes, quotes are plain."""
_BLOCK = 512
"""Bytes of a block in which `place` searches."""

_HEX = "[0-9a-fA-F]"
_RUN = r"\\\\{0,63}+"
"""Backslashes: each level of JSON in JSON doubles them. Patterns begin with one byte, which makes searches fast."""
_CSI = r"\[[0-?]{0,64}[ -/]{0,4}"
_STRING = r"[\]PX^_][^\x07\x1b]{0,512}"
_ESCAPE_CODE = "(?:u001[bB]|x1[bB]|0?33|e)"
_ESCAPED_ESC = f"{_RUN}{_ESCAPE_CODE}"
_HIGH, _LOW = f"u[dD][89abAB]{_HEX}{{2}}", f"u[dD][c-fC-F]{_HEX}{{2}}"
_CODED = f"{_HIGH}{_RUN}{_LOW}|u{_HEX}{{4}}|U{_HEX}{{8}}|[ux]\\{{{_HEX}{{1,8}}\\}}|x{_HEX}{{2}}|[0-3][0-7]{{2}}"
_CHARACTER = f"{_CODED}|[nrt]"
# Zero width, bidirectional controls, fillers, tags, variation selectors, C1 controls; blanks of other widths.
_INVISIBLE = {
    b"\xc2": r"[\x80-\xa0\xad]",
    b"\xcd": r"\x8f",
    b"\xd8": r"\x9c",
    b"\xe1": r"(?:\x85[\x9f\xa0]|\x9e[\xb4\xb5]|\xa0[\x8b-\x8f])",
    b"\xe2": r"(?:\x80[\x80-\x8f\xa8-\xaf]|\x81[\x9f-\xaf])",
    b"\xe3": r"(?:\x80\x80|\x85\xa4)",
    b"\xef": r"(?:\xb8[\x80-\x8f]|\xbb\xbf|\xbe\xa0|\xbf[\xb0-\xbb])",
    b"\xf0": r"(?:\x9b\xb2[\xa0-\xa3]|\x9d\x85[\xb3-\xba])",
    b"\xf3": r"\xa0[\x80-\x87][\x80-\xbf]",
}
"""By first byte, like the patterns below."""
_NAMED = {b"amp": b"&", b"lt": b"<", b"gt": b">", b"quot": b'"', b"apos": b"'", b"nbsp": b""}
_NAMES = "amp|lt|gt|quot|apos|nbsp"


_BACKSLASHED = rf"{_ESCAPE_CODE}{_CSI}[@-~]|{_CHARACTER}"
_OTHERS = {
    **_INVISIBLE,
    b"\xc2": r"(?:\x9b[0-?]{0,64}[ -/]{0,4}[@-~]|[\x80-\xa0\xad])",
    b"%": rf"(?:25){{0,8}}{_HEX}{{2}}",
    b"&": rf"(?:amp;){{0,4}}(?:#[0-9]{{1,15}};|#[xX]{_HEX}{{1,15}};|(?:{_NAMES});)",
}


def _escapes(strings: str) -> dict[bytes, str]:
    return {
        b"\x1b": rf"(?:{strings}{_CSI}[@-~]|[ -/]{{0,4}}[0-~]?)",
        b"\\": rf"(?:[nrt]|{_BACKSLASHED}|\\{{1,63}}(?:{_BACKSLASHED})?)",
        **_OTHERS,
    }


def _pattern(by_first: Mapping[bytes, str]) -> re.Pattern[bytes]:
    parts = (re.escape(first) + rest.encode("ascii") for first, rest in by_first.items())
    return re.compile(b"(%b)" % b"|".join(parts), re.DOTALL)


# Compiled patterns, and the pattern of an end of data that may begin an escape or noise.
_ALL = _escapes(rf"{_STRING}(?:\x07|\x1b\\)|")
_ESCAPES = _pattern(_ALL)
_BACKSLASH = b"\\"
_MEANT = {**_ALL, _BACKSLASH: rf"(?=[nrtuUxe0-3])(?:{_BACKSLASHED})"}
"""The same without single backslashes, which no reading has."""
_RARE = {**_ALL, _BACKSLASH: rf"(?=[rtuUxe0-3])(?:{_ESCAPE_CODE}{_CSI}[@-~]|[rt]|{_CODED})"}
"""The same without line ends, of which every line of JSON has many."""
_MEANT_BY_BYTE, _RARE_BY_BYTE = (
    {first: re.compile(re.escape(first) + rest.encode("ascii"), re.DOTALL) for first, rest in each.items()}
    for each in (_MEANT, _RARE)
)
"""A pattern that begins with one byte is found ten times as fast."""
_ANY_MEANT, _ANY_RARE = _pattern(_MEANT), _pattern(_RARE)
_MANY = 256
"""The fewest bytes per escape for which a search for each kind by itself is faster."""
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
_OF_ESCAPES = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFU{\\%&#;" + bytes(range(128, 256))
"""All bytes of the escapes above, without terminal sequences."""
# A terminal hides titles and links, but a reader of the log sees their text.
_ESCAPES_NOT_STRINGS = _pattern(_escapes(""))
_OFFSET = r"\r?\n[0-9a-f]{7,16}:? {1,2}"
_DUMP_LINE = re.compile(rb"[0-9a-f]{7,16}:? {1,2}[0-9a-f]{2,4} ")
_NEXT_DUMP_LINE = re.compile(rb"\n[0-9a-f]{7,16}:? {1,2}[0-9a-f]{2,4} ")
_OFFSET_BEGUN = re.compile(rb"[0-9a-f]{1,16}:? {0,2}(?:[0-9a-f]{1,4} {0,2})?")
_ROW = re.compile(rb"[0-9a-fA-F] {2}")
# Read the bytes of a dump alone, and its column of characters alone.
_DUMPED_BYTES = re.compile(rf"((?: {{2}}(?:\|[ -~]{{1,16}}\||[ -~]{{16,32}}))?{_OFFSET})".encode())
_OPEN_BYTES = re.compile(
    rb"(?: {2}(?:\|[ -~]{0,16}\|?|[ -~]{0,32})(?:\r?\n[0-9a-f]{0,16}:? {0,2})?|\r?\n[0-9a-f]{0,16}:? {0,2})\Z"
)
_DUMPED_TEXT = re.compile(rf"(\|?{_OFFSET}[0-9a-f]{{2,4}}(?: {{1,2}}[0-9a-f]{{2,4}}){{0,15}} {{2,50}}\|?)".encode())
_OPEN_TEXT = re.compile(rb"(?:\||\|?\r?\n[0-9a-f]{0,16}:?(?: {1,2}[0-9a-f]{2,4}){0,16} {0,50}[0-9a-f]{0,4}\|?)\Z")


class Reading:
    """One way to read data; `text` is the result."""

    def __init__(self, data: bytes, noise: re.Pattern[bytes] | None = None) -> None:
        self._data = data
        self._noise = noise
        self.text = _decoded(data) if noise is _ESCAPES else self.decode(self._parts)

    @functools.cached_property
    def _parts(self) -> Sequence[bytes]:
        """The parts of the data; every other one is noise or an escape."""
        return [self._data] if self._noise is None else self._noise.split(self._data)

    def decode(self, parts: Sequence[bytes], kept: bytes = b"") -> bytes:
        """Return the text of parts, without noise but with the bytes of `kept`."""
        dropped = DROPPED.translate(None, kept) if kept else DROPPED
        if len(parts) == 1:
            return parts[0].translate(None, dropped)
        meant = [*parts]
        meant[1::2] = map(_MEANINGS.__getitem__, parts[1::2])
        return b"".join(meant).translate(None, dropped)

    def decode_between(self, start: int, end: int, kept: bytes) -> bytes:
        """Return the text of a range of the data, as `place` returns it."""
        data = self._data[start:end]
        return self.decode([data] if self._noise is None else self._noise.split(data), kept)

    def place(self, start: int, end: int) -> tuple[int, int]:
        """Return the range of the data that these bytes of `text` come from."""
        return self._place(start)[0], self._place(end - 1)[1]

    def last(self, count: int) -> int:
        """Return where in the data the last `count` bytes of `text` begin, perhaps in the middle of an escape."""
        if self._data.endswith(self.text[-count:]):
            return len(self._data) - count
        return self._place(len(self.text) - count)[0]

    def beginning(self, place: int) -> int:
        """Return where the escape or noise around this place begins; the place itself if there is none."""
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
        at = start + bisect_left(range(len(data)), wanted, key=lambda last: len(self.decode([data[: last + 1]])))
        return at, at + 1

    def _is_whole(self, block: int) -> bool:
        return block in self._blocks[2]

    @functools.cached_property
    def _blocks(self) -> tuple[list[int], list[int], set[int]]:
        """The start of each block in the data and in the text, and the blocks that are noise or an escape."""
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
                count += len(self.decode([b"", block, b""] if is_whole else [block]))
        return starts, counts, whole


def _decoded(data: bytes) -> bytes:
    """Return the decoded data like `decode`, but faster: most output has few escapes, or only line ends."""
    has_many = data.count(_BACKSLASH) * _MANY > len(data)
    parts = _split(data, _RARE_BY_BYTE, _ANY_RARE) if has_many else _split(data, _MEANT_BY_BYTE, _ANY_MEANT)
    if parts:
        parts[1::2] = map(_MEANINGS.__getitem__, parts[1::2])
        # The zero byte keeps a backslash and a decoded letter from forming an escape.
        data = b"\0".join(parts)
    return (data.replace(b"\\n", b"\0\0") if has_many else data).translate(None, DROPPED)


def _split(data: bytes, by_byte: Mapping[bytes, re.Pattern[bytes]], pattern: re.Pattern[bytes]) -> list[bytes]:
    """Split data as `pattern` does; return an empty list if nothing matches."""
    found: list[tuple[int, int]] = []
    most = len(data) // _MANY + 1
    for first, each in by_byte.items():
        if first in data:
            found += [match.span() for match in itertools.islice(each.finditer(data), most)]
            if len(found) >= most:
                return pattern.split(data)
    found.sort()
    parts: list[bytes] = []
    at = 0
    for start, end in found:
        if start < at:
            # One begins inside another: which of them counts depends on the text before.
            return pattern.split(data)
        parts += (data[at:start], data[start:end])
        at = end
    return [*parts, data[at:]] if parts else parts


def readings(data: bytes) -> Iterator[Reading]:
    """Yield each different reading of data."""
    plain = Reading(data)
    yield plain
    if _may_have_escapes(data):
        if (decoded := Reading(data, _ESCAPES)).text != plain.text:
            yield decoded
        if _STRINGS.search(data):
            yield Reading(data, _ESCAPES_NOT_STRINGS)
    if _has_dump(data):
        yield Reading(data, _DUMPED_BYTES)
        yield Reading(data, _DUMPED_TEXT)


def last_readings(data: bytes) -> Iterator[tuple[Reading, bytes]]:
    """Yield readings of the end of a stream so far, without the bytes that may begin an escape; and those bytes."""
    yield Reading(data), b""
    last = len(data) - limits.ESCAPE.most
    if _may_have_escapes(data):
        left_open = _end(_OPEN, data, max(last, _where_open(data)))
        yield Reading(data[: len(data) - len(left_open)], _ESCAPES), left_open
        if _STRINGS.search(data):
            yield Reading(data[: len(data) - len(left_open)], _ESCAPES_NOT_STRINGS), left_open
    if _may_end_in_dump(data):
        for noise, open_end in ((_DUMPED_BYTES, _OPEN_BYTES), (_DUMPED_TEXT, _OPEN_TEXT)):
            left_open = _end(open_end, data, last)
            yield Reading(data[: len(data) - len(left_open)], noise), left_open


def begins_escape(data: bytes) -> bool:
    """Say whether the left-out end of data may be the first character of a secret."""
    return data[:1] in (b"\\", b"%", b"&")


def _end(open_end: re.Pattern[bytes], data: bytes, last: int) -> bytes:
    found = open_end.search(data, max(0, last))
    return found[0] if found else b""


def _where_open(data: bytes) -> int:
    """Return the earliest start of an escape at the end of data: each byte since can be part of one."""
    bracket = data.rfind(b"[", -limits.TERMINAL_SEQUENCE.most)
    if b"\x1b" in data or b"\x9b" in data or (bracket > 0 and data[bracket - 1] in b"bB3e"):
        return 0
    return len(data.rstrip(_OF_ESCAPES))


def _has_dump(data: bytes) -> bool:
    return bool(_NEXT_DUMP_LINE.search(data) or _DUMP_LINE.match(data))


def _may_end_in_dump(data: bytes) -> bool:
    """Say whether data ends in a dump, or in a line of one whose beginning may be gone already."""
    before, end, line = data.rpartition(b"\n")
    if end and line and _OFFSET_BEGUN.fullmatch(line):
        return True
    row = line or before[before.rfind(b"\n") + 1 :].rstrip(b"\r")
    return row.endswith(b"|") or bool(_ROW.search(row)) or _has_dump(data)


def _may_have_escapes(data: bytes) -> bool:
    return b"\\" in data or b"%" in data or b"&" in data or b"\x1b" in data or not data.isascii()


_STRINGS = re.compile(rb"\x1b[\]PX^_]")


class _Meanings(dict[bytes, bytes]):
    """The bytes that each escape means; empty for noise."""

    def __missing__(self, escape: bytes) -> bytes:
        if len(self) > limits.ESCAPES_KNOWN.most:
            self.clear()
        meaning = self[escape] = _meaning(escape)
        return meaning


_MEANINGS = _Meanings()
_ONE_INVISIBLE = _pattern(_INVISIBLE)
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
    return b"" if _ONE_INVISIBLE.fullmatch(encoded) else encoded
